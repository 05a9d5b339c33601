#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "ddpo/cluster/v1/cluster.pb.h"

namespace ddpo {

// Where every received sample went: received = trained + dropped + buffered, always.
class Ledger {
 public:
  // A sample came and is held.
  void Buffer() {
    ++received_;
    ++buffered_;
  }
  // A sample came and was not held.
  void Drop(const std::string& reason) {
    ++received_;
    ++dropped_[reason];
  }
  // `count` held samples were trained on.
  void Train(int64_t count) {
    buffered_ -= count;
    trained_ += count;
  }

  // Starts from a checkpoint's numbers; what was buffered then is not held any more.
  void Restore(const cluster::v1::Ledger& saved);
  cluster::v1::Ledger ToProto() const;

 private:
  int64_t received_ = 0;
  int64_t trained_ = 0;
  int64_t buffered_ = 0;
  std::map<std::string, int64_t> dropped_;
};

// Adds another rank's numbers.
void AddLedger(const cluster::v1::Ledger& other, cluster::v1::Ledger* sum);

}  // namespace ddpo
