#include "common/tensors/safetensors.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;
using testing::TempDir;

// A file with this header and so many bytes of data.
std::string File(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header +
         std::string(data_bytes, '\0');
}

std::string ErrorOf(const std::string& bytes) {
  const auto contents = ParseSafetensors(bytes);
  EXPECT_EQ(contents.status().code(), absl::StatusCode::kDataLoss) << contents.status();
  return std::string(contents.status().message());
}

TEST(SafetensorsTest, ReadsBackEveryDtype) {
  NamedTensors tensors;
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                    at::kInt, at::kShort, at::kChar, at::kByte, at::kBool}) {
    tensors[c10::toString(type)] = at::arange(6).reshape({2, 3}).to(type);
  }
  tensors["scalar"] = at::tensor(1.5).reshape({});
  tensors["empty"] = at::zeros({0, 4});
  const TempDir dir;
  ASSERT_TRUE(WriteSafetensors(dir / "all.safetensors", tensors, {{"kind", "test"}}).ok());
  const auto read = ReadSafetensors(dir / "all.safetensors");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->metadata.at("kind"), "test");
  ASSERT_EQ(read->tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(read->tensors.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(read->tensors.at(name).equal(tensor)) << name;
  }
}

TEST(SafetensorsTest, WritesTheSameBytesForTheSameTensors) {
  const NamedTensors tensors = {{"b", at::ones({3})}, {"a", at::zeros({2, 2})}};
  EXPECT_EQ(SerializeSafetensors(tensors, {{"k", "v"}}),
            SerializeSafetensors(tensors, {{"k", "v"}}));
}

TEST(SafetensorsTest, NamesWhatIsDamaged) {
  EXPECT_THAT(ErrorOf("abc"), HasSubstr("shorter than its header's length"));
  EXPECT_THAT(ErrorOf(std::string(8, '\xff')), HasSubstr("bytes; at most"));
  EXPECT_THAT(ErrorOf(File("{}", 0).substr(0, 9)), HasSubstr("truncated"));
  EXPECT_THAT(ErrorOf(File("not json", 0)), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf(File(R"({"x":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}})", 4)),
              HasSubstr("tensor x: unknown dtype Q4"));
  EXPECT_THAT(ErrorOf(File(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", 4)),
              HasSubstr("leave the file's 4 bytes of data"));
  EXPECT_THAT(ErrorOf(File(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 8)),
              HasSubstr("offsets hold 4 bytes where dtype and shape need 8"));
  EXPECT_THAT(ErrorOf(File(R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4)),
              HasSubstr("a size is not a natural number"));
  EXPECT_THAT(
      ErrorOf(
          File(R"({"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", 4)),
      HasSubstr("the shape needs more bytes than the file has"));
  for (const char* shape : {"[0,18446744073709551615]", "[4611686018427387904,0,4]"}) {
    EXPECT_THAT(
        ErrorOf(File(
            absl::StrCat(R"({"x":{"dtype":"U8","data_offsets":[0,0],"shape":)", shape, "}}"), 0)),
        HasSubstr("tensor x: the shape"));
  }
  EXPECT_THAT(ErrorOf(File(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                           R"("y":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                           6)),
              HasSubstr("overlaps another"));
  EXPECT_THAT(ErrorOf(File(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 9)),
              HasSubstr("the tensors end at byte 4 of 9"));
}

TEST(SafetensorsTest, NamesTheFile) {
  const TempDir dir;
  EXPECT_EQ(ReadSafetensors(dir / "none.safetensors").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(dir / "empty.safetensors", "").ok());
  EXPECT_THAT(std::string(ReadSafetensors(dir / "empty.safetensors").status().message()),
              HasSubstr("empty.safetensors: the file is empty"));
}

TEST(SafetensorsTest, ReadsShardsByTheirIndex) {
  const TempDir dir;
  ASSERT_TRUE(WriteSafetensors(dir / "one.safetensors", {{"a", at::ones({2})}}).ok());
  ASSERT_TRUE(WriteSafetensors(dir / "two.safetensors", {{"b", at::zeros({3})}}).ok());
  const std::string index = dir / "model.safetensors.index.json";
  ASSERT_TRUE(
      WriteFileAtomically(index, R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})")
          .ok());
  const auto read = ReadSafetensors(index);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->tensors.at("b").equal(at::zeros({3})));

  ASSERT_TRUE(WriteFileAtomically(index, R"({"weight_map":{"c":"one.safetensors"}})").ok());
  EXPECT_THAT(std::string(ReadSafetensors(index).status().message()),
              HasSubstr("one.safetensors: tensor c is missing"));
  ASSERT_TRUE(WriteFileAtomically(index, R"({"weight_map":{"a":"../one.safetensors"}})").ok());
  EXPECT_THAT(std::string(ReadSafetensors(index).status().message()),
              HasSubstr("weight_map.a: expected a file name"));
}

}  // namespace
}  // namespace ddpo
