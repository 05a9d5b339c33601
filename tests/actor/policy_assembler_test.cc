#include "actor/policy_assembler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/base/sha256.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

using cluster::v1::PolicyChunk;

PolicyChunk Header(int64_t version, const std::string& bytes) {
  PolicyChunk chunk;
  chunk.mutable_header()->set_version(version);
  chunk.mutable_header()->set_total_bytes(static_cast<int64_t>(bytes.size()));
  chunk.mutable_header()->set_sha256(Sha256Hex(bytes));
  return chunk;
}

PolicyChunk Data(const std::string& bytes) {
  PolicyChunk chunk;
  chunk.set_data(bytes);
  return chunk;
}

TEST(PolicyAssemblerTest, PutsChunksTogetherOneVersionAfterTheOther) {
  PolicyAssembler assembler;
  for (int64_t version : {3, 4}) {
    EXPECT_FALSE(assembler.Feed(Header(version, "weights"))->has_value());
    EXPECT_FALSE(assembler.Feed(Data("wei"))->has_value());
    const auto policy = assembler.Feed(Data("ghts"));
    ASSERT_TRUE(policy.ok() && policy->has_value()) << policy.status();
    EXPECT_EQ((*policy)->version, version);
    EXPECT_EQ((*policy)->bytes, "weights");
    EXPECT_EQ((*policy)->sha256, Sha256Hex("weights"));
  }
}

TEST(PolicyAssemblerTest, RefusesBytesWithAnotherDigest) {
  PolicyAssembler assembler;
  ASSERT_TRUE(assembler.Feed(Header(3, "weights")).ok());
  const auto policy = assembler.Feed(Data("weightz"));
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(policy.status().message()), HasSubstr("version 3 has digest"));
}

TEST(PolicyAssemblerTest, RefusesMoreBytesThanAnnounced) {
  PolicyAssembler assembler;
  ASSERT_TRUE(assembler.Feed(Header(3, "weights")).ok());
  EXPECT_EQ(assembler.Feed(Data("weights and more")).status().code(), absl::StatusCode::kDataLoss);
}

TEST(PolicyAssemblerTest, RefusesBytesWithoutAHeader) {
  PolicyAssembler assembler;
  EXPECT_EQ(assembler.Feed(Data("weights")).status().code(), absl::StatusCode::kDataLoss);
}

TEST(PolicyAssemblerTest, RefusesAHeaderBeforeTheLastVersionIsComplete) {
  PolicyAssembler assembler;
  ASSERT_TRUE(assembler.Feed(Header(3, "weights")).ok());
  ASSERT_TRUE(assembler.Feed(Data("wei")).ok());
  const auto next = assembler.Feed(Header(4, "other"));
  EXPECT_EQ(next.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(next.status().message()), HasSubstr("ended after 3 of 7 bytes"));
}

TEST(PolicyAssemblerTest, RefusesAnAbsurdLength) {
  PolicyAssembler assembler;
  PolicyChunk chunk = Header(3, "weights");
  chunk.mutable_header()->set_total_bytes(-1);
  EXPECT_EQ(assembler.Feed(chunk).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace ddpo
