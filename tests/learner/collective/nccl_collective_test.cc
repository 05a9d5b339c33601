// Ranks on GPUs. What a group does when a rank dies is in collective_test.cc; here it is shown for
// NCCL, whose calls do not return by themselves then.
#include "learner/collective/nccl_collective.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "learner/collective/key_value_store.h"
#include "tests/learner/collective/run_ranks.h"
#include "tests/testing/gpus.h"

namespace ddpo {
namespace {

using ::ddpo::testing::HasGpus;
using ::ddpo::testing::RunRanks;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

CollectiveOptions Nccl(absl::Duration timeout = absl::Seconds(120)) {
  CollectiveOptions options;
  options.backend = "nccl";
  options.timeout = timeout;
  return options;
}

at::Tensor OnGpu(int gpu, int64_t elements, double value, at::ScalarType type = at::kFloat) {
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
  return at::full({elements}, value, at::TensorOptions(type).device(device));
}

FlatBuffer Buffer(at::Tensor& values) {
  return {values.data_ptr(), static_cast<size_t>(values.numel()),
          values.scalar_type() == at::kFloat ? ElementType::kFloat32 : ElementType::kBFloat16};
}

TEST(NcclCollectiveTest, OneGpuIsAGroupOfItsOwn) {
  if (!HasGpus(1)) GTEST_SKIP();
  TcpKeyValueStoreOptions store_options;
  store_options.is_server = true;
  auto store = CreateTcpKeyValueStore(store_options);
  ASSERT_TRUE(store.ok()) << store.status();
  auto collective = CreateNcclCollective(Nccl(), *std::move(store));
  ASSERT_TRUE(collective.ok()) << collective.status();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Tensor values = OnGpu(0, 1000, 1.5, type);
    ASSERT_TRUE((*collective)->AllReduceSum(Buffer(values)).ok());
    EXPECT_TRUE(values.eq(1.5).all().item<bool>());
  }
  EXPECT_THAT((*collective)->AllGather("x").value(), ElementsAre("x"));
  EXPECT_TRUE((*collective)->Leave().ok());
}

TEST(NcclCollectiveTest, AllGpusAddTheirBuffersAndGetTheSameBits) {
  if (!HasGpus(2)) GTEST_SKIP();
  const int size = static_cast<int>(std::min<size_t>(at::getNumGPUs(), 4));
  std::vector<at::Tensor> results(2 * size);
  for (int repetition = 0; repetition < 2; ++repetition) {
    RunRanks(size, Nccl(), [&](Collective& collective) {
      const int rank = collective.rank();
      at::Tensor values = OnGpu(rank, 3001, 1.0 / (3 + rank));
      ASSERT_TRUE(collective.AllReduceSum(Buffer(values)).ok());
      results[repetition * size + rank] = values.cpu();
      at::Tensor small = OnGpu(rank, 100, 1 + rank, at::kBFloat16);
      ASSERT_TRUE(collective.AllReduceSum(Buffer(small)).ok());
      EXPECT_TRUE(small.eq(size * (size + 1) / 2).all().item<bool>());
    });
  }
  double sum = 0;
  for (int rank = 0; rank < size; ++rank) sum += 1.0 / (3 + rank);
  EXPECT_NEAR(results[0][0].item<float>(), sum, 1e-6);
  for (const at::Tensor& result : results) EXPECT_TRUE(result.equal(results[0]));
}

TEST(NcclCollectiveTest, NamesTheRankThatDiedInAnAllReduce) {
  if (!HasGpus(2)) GTEST_SKIP();
  RunRanks(2, Nccl(absl::Seconds(5)), [](Collective& collective) {
    if (collective.rank() == 1) return;
    at::Tensor values = OnGpu(0, 1000, 1);
    const absl::Status status = collective.AllReduceSum(Buffer(values));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 of 2 is gone"));
  });
}

TEST(NcclCollectiveTest, TellsTheOthersWhyARankGaveUp) {
  if (!HasGpus(2)) GTEST_SKIP();
  RunRanks(2, Nccl(absl::Seconds(20)), [](Collective& collective) {
    if (collective.rank() == 1) return collective.Abort("the disk is full");
    at::Tensor values = OnGpu(0, 1000, 1);
    EXPECT_THAT(std::string(collective.AllReduceSum(Buffer(values)).message()),
                HasSubstr("rank 1 of 2 is gone: the disk is full"));
  });
}

}  // namespace
}  // namespace ddpo
