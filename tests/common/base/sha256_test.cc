#include "common/base/sha256.h"

#include "common/base/files.h"
#include "gtest/gtest.h"

namespace ddpo {
namespace {

// FIPS 180-2, appendix B, and the well-known digest of nothing.
constexpr char kOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kOfNothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kOfAMillionAs[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256Test, AgreesWithTheStandard) {
  EXPECT_EQ(Sha256Hex("abc"), kOfAbc);
  EXPECT_EQ(Sha256Hex(""), kOfNothing);
}

TEST(Sha256Test, DoesNotDependOnThePieces) {
  Sha256 hash;
  const std::string piece(1000, 'a');
  for (int i = 0; i < 1000; ++i) hash.Update(piece);
  EXPECT_EQ(hash.HexDigest(), kOfAMillionAs);
}

TEST(Sha256Test, HashesFiles) {
  const std::string path = ::testing::TempDir() + "/sha256_test";
  // More than the reader's buffer.
  ASSERT_TRUE(WriteFileAtomically(path, std::string(3 << 20, 'x') + "end").ok());
  EXPECT_EQ(*Sha256HexOfFile(path), Sha256Hex(std::string(3 << 20, 'x') + "end"));
  EXPECT_EQ(Sha256HexOfFile(path + ".missing").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(FileSystem::Real()->RemoveAll(path).ok());
}

}  // namespace
}  // namespace ddpo
