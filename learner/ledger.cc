#include "learner/ledger.h"

namespace ddpo {

void Ledger::Restore(const cluster::v1::Ledger& saved) {
  received_ = saved.received();
  trained_ = saved.trained();
  dropped_ = {saved.dropped().begin(), saved.dropped().end()};
  buffered_ = 0;
  if (saved.buffered() > 0) dropped_["discarded_at_stop"] += saved.buffered();
}

cluster::v1::Ledger Ledger::ToProto() const {
  cluster::v1::Ledger ledger;
  ledger.set_received(received_);
  ledger.set_trained(trained_);
  ledger.set_buffered(buffered_);
  for (const auto& [reason, count] : dropped_) (*ledger.mutable_dropped())[reason] = count;
  return ledger;
}

void AddLedger(const cluster::v1::Ledger& other, cluster::v1::Ledger* sum) {
  sum->set_received(sum->received() + other.received());
  sum->set_trained(sum->trained() + other.trained());
  sum->set_buffered(sum->buffered() + other.buffered());
  for (const auto& [reason, count] : other.dropped()) (*sum->mutable_dropped())[reason] += count;
}

}  // namespace ddpo
