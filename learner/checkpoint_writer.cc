#include "learner/checkpoint_writer.h"

#include <utility>

namespace ddpo {

CheckpointWriter::CheckpointWriter(CheckpointStore* store,
                                   std::function<void(const Checkpoint&)> written)
    : store_(store), written_(std::move(written)), thread_([this] { Run(); }) {}

CheckpointWriter::~CheckpointWriter() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

absl::Status CheckpointWriter::Write(Checkpoint checkpoint) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointWriter::Idle));
  if (status_.ok()) pending_ = std::move(checkpoint);
  return status_;
}

absl::Status CheckpointWriter::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointWriter::Idle));
  return status_;
}

absl::Status CheckpointWriter::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void CheckpointWriter::Run() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &CheckpointWriter::HasWork));
    if (Idle()) return;
    // Nobody else touches it until it is reset.
    const Checkpoint& checkpoint = *pending_;
    mutex_.Unlock();
    const absl::Status status = store_->Write(checkpoint);
    if (status.ok()) written_(checkpoint);
    mutex_.Lock();
    if (!status.ok()) status_ = status;
    pending_.reset();
  }
}

}  // namespace ddpo
