#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ddpo/reward/v1/jobs.grpc.pb.h"
#include "reward_server/jobs.h"
#include "reward_server/jobs_store.h"
#include "reward_server/scorer_pool.h"
#include "reward_server/silence_watch.h"

namespace ddpo {

struct JobsServiceOptions {
  // SubmitJob and WaitJob calls at a time: each holds a thread. More are RESOURCE_EXHAUSTED.
  int max_long_calls = 128;
  // SubmitJob is CANCELLED where nothing comes for so long: a caller need not name a deadline.
  absl::Duration max_upload_silence = absl::Minutes(2);
  // Longest WaitJob.
  absl::Duration max_wait = absl::Hours(1);
  // Most items of one job.
  int64_t max_items = 1000000;
};

// ddpo.reward.v1.RewardJobs. Synchronous: its methods wait for the disk, on gRPC's own threads.
class JobsService final : public reward::v1::RewardJobs::Service {
 public:
  // All three outlive the service.
  JobsService(JobStore* store, JobRunner* runner, ScorerPool* pool,
              const JobsServiceOptions& options);

  // In place of the generated SubmitJob, which takes a message that does not parse for the stream's
  // end, and so would make a job of what came before it. See common/rpc/raw_message.h.
  grpc::Status SubmitJobBytes(grpc::ServerContext* context,
                              grpc::ServerReader<grpc::ByteBuffer>* reader,
                              reward::v1::Job* response);
  grpc::Status GetJob(grpc::ServerContext* context, const reward::v1::GetJobRequest* request,
                      reward::v1::Job* response) override;
  grpc::Status ListJobs(grpc::ServerContext* context, const reward::v1::ListJobsRequest* request,
                        reward::v1::ListJobsResponse* response) override;
  grpc::Status WaitJob(grpc::ServerContext* context, const reward::v1::WaitJobRequest* request,
                       reward::v1::Job* response) override;
  grpc::Status CancelJob(grpc::ServerContext* context, const reward::v1::CancelJobRequest* request,
                         reward::v1::Job* response) override;
  grpc::Status DeleteJob(grpc::ServerContext* context, const reward::v1::DeleteJobRequest* request,
                         google::protobuf::Empty* response) override;
  grpc::Status ListJobResults(grpc::ServerContext* context,
                              const reward::v1::ListJobResultsRequest* request,
                              reward::v1::ListJobResultsResponse* response) override;

 private:
  class LongCall;
  class Upload;

  absl::Status ReadUpload(grpc::ServerContext* context,
                          grpc::ServerReader<grpc::ByteBuffer>* reader, Upload* upload);

  JobStore* const store_;
  JobRunner* const runner_;
  ScorerPool* const pool_;
  const JobsServiceOptions options_;
  SilenceWatch silence_;
  absl::Mutex mu_;
  int long_calls_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace ddpo
