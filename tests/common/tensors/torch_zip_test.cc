#include "common/tensors/torch_zip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Golden() {
  return ReadFile(SourcePath("tests/goldens/torch_zip/state_dict.pth")).value();
}

// A little-endian number.
std::string Number(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i)
    text.push_back(static_cast<char>(i < 8 ? value >> (8 * i) : 0));
  return text;
}

// A zip archive of stored entries; `method` is written into the directory.
std::string Zip(const std::map<std::string, std::string>& entries, uint16_t method = 0) {
  std::string files, directory;
  for (const auto& [name, contents] : entries) {
    const std::string sizes = Number(contents.size(), 4) + Number(contents.size(), 4);
    directory += absl::StrCat("PK\x01\x02", Number(0, 6), Number(method, 2), Number(0, 8), sizes,
                              Number(name.size(), 2), Number(0, 12), Number(files.size(), 4), name);
    files += absl::StrCat("PK\x03\x04", Number(0, 14), sizes, Number(name.size(), 2), Number(0, 2),
                          name, contents);
  }
  return absl::StrCat(files, directory, "PK\x05\x06", Number(0, 4), Number(entries.size(), 2),
                      Number(entries.size(), 2), Number(directory.size(), 4),
                      Number(files.size(), 4), Number(0, 2));
}

std::string Text(const std::string& text) {
  return absl::StrCat("X", Number(text.size(), 4), text);
}

std::string Int(int64_t value) { return absl::StrCat("\x8a\x08", Number(value, 8)); }

// The pickle of {"w": a tensor of a FloatStorage `0`}.
std::string TensorPickle(const std::string& elements, const std::string& offset,
                         const std::string& sizes, const std::string& strides,
                         const std::string& type = "FloatStorage") {
  return absl::StrCat("\x80\x02}", Text("w"), "ctorch._utils\n_rebuild_tensor_v2\n((",
                      Text("storage"), "ctorch\n", type, "\n", Text("0"), Text("cpu"), elements,
                      "tQ", offset, sizes, strides, "\x89", "ccollections\nOrderedDict\n)RtRs.");
}

std::string OneTensor(const std::string& pickle, size_t data_bytes = 16) {
  return Zip({{"a/data.pkl", pickle}, {"a/data/0", std::string(data_bytes, '\0')}});
}

absl::Status ErrorOf(const std::string& bytes) {
  const absl::Status status = ParseTorchZip("head.pth", bytes).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("head.pth"));
  return status;
}

TEST(TorchZipTest, ReadsWhatTorchSaveWrote) {
  const auto tensors = ReadTorchZip(SourcePath("tests/goldens/torch_zip/state_dict.pth"));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  const auto expected =
      ReadSafetensors(SourcePath("tests/goldens/torch_zip/state_dict.safetensors"));
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(tensors->size(), expected->tensors.size());
  for (const auto& [name, tensor] : expected->tensors) {
    ASSERT_TRUE(tensors->contains(name)) << name;
    EXPECT_EQ(tensors->at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(tensors->at(name), tensor)) << name;
  }
}

TEST(TorchZipTest, ReadsAnArchiveThatIsNotAligned) {
  const std::string bytes =
      OneTensor(TensorPickle(Int(4), Int(0), Int(2) + Int(2) + "\x86", Int(2) + Int(1) + "\x86"));
  for (size_t shift = 0; shift < 4; ++shift) {
    // Other names move the data.
    const auto tensors = ParseTorchZip(
        "x", Zip({{"a" + std::string(shift, 'a') + "/data.pkl",
                   TensorPickle(Int(4), Int(1), Int(3) + "\x85", Int(1) + "\x85")},
                  {"a" + std::string(shift, 'a') + "/data/0",
                   std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 16)}}));
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    EXPECT_TRUE(at::equal(tensors->at("w"), at::tensor({2.f, 3.f, 4.f})));
  }
  EXPECT_TRUE(ParseTorchZip("x", bytes).ok());
}

TEST(TorchZipTest, DoesNotCallWhatAPickleAsksFor) {
  const absl::Status status =
      ErrorOf(OneTensor(absl::StrCat("\x80\x02", "cos\nsystem\n", Text("true"), "\x85R.")));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("os.system"));
}

TEST(TorchZipTest, NamesAnInstructionThatNoStateDictNeeds) {
  const absl::Status status = ErrorOf(OneTensor("\x80\x02]."));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0x5d"));
  EXPECT_THAT(std::string(ErrorOf(OneTensor("\x80\x04}.")).message()), HasSubstr("protocol 4"));
}

TEST(TorchZipTest, RefusesViewsThatLeaveTheirStorage) {
  const auto error = [](int64_t offset, const std::string& sizes, const std::string& strides) {
    const absl::Status status =
        ErrorOf(OneTensor(TensorPickle(Int(4), Int(offset), sizes, strides)));
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("tensor w"), HasSubstr("4")));
  };
  const int64_t huge = int64_t{1} << 62;
  error(0, Int(5) + "\x85", Int(1) + "\x85");
  error(1, Int(4) + "\x85", Int(1) + "\x85");
  error(4, Int(1) + "\x85", Int(1) + "\x85");
  error(INT64_MAX, Int(1) + "\x85", Int(1) + "\x85");
  error(0, Int(2) + "\x85", Int(INT64_MAX) + "\x85");
  error(0, Int(huge) + Int(4) + "\x86", Int(1) + Int(1) + "\x86");
  error(0, Int(huge) + "\x85", Int(0) + "\x85");                    // one element, many times
  error(0, Int(0) + Int(huge) + "\x86", Int(1) + Int(1) + "\x86");  // nothing, but large
  error(0, Int(2) + Int(2) + "\x86", Int(2) + Int(2) + "\x86");     // ends at element 4
}

TEST(TorchZipTest, RefusesDescriptionsThatMakeNoSense) {
  const std::string one = Int(1) + "\x85";
  for (const std::string& pickle : {
           TensorPickle(Int(-1), Int(0), one, one), TensorPickle(Int(4), Int(-1), one, one),
           TensorPickle(Int(4), Int(0), Int(-4) + "\x85", one),
           TensorPickle(Int(4), Int(0), one, ")"), TensorPickle(Int(4), Int(0), "N", one),
           TensorPickle(Text("4"), Int(0), one, one),
           TensorPickle(Int(5), Int(0), one, one),  // the data has 4
       }) {
    EXPECT_EQ(ErrorOf(OneTensor(pickle)).code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_THAT(
      std::string(
          ErrorOf(OneTensor(TensorPickle(Int(4), Int(0), one, one, "OddStorage"))).message()),
      HasSubstr("OddStorage"));
  EXPECT_THAT(
      std::string(ErrorOf(Zip({{"a/data.pkl", TensorPickle(Int(4), Int(0), one, one)}})).message()),
      HasSubstr("a/data/0 is missing"));
}

TEST(TorchZipTest, RefusesPicklesOfSomethingElse) {
  for (const std::string& pickle : {std::string("\x80\x02N."), std::string("\x80\x02)."),
                                    absl::StrCat("\x80\x02}", Text("epoch"), "K\x07s.")}) {
    EXPECT_EQ(ErrorOf(OneTensor(pickle)).code(), absl::StatusCode::kInvalidArgument);
  }
  // A dictionary that holds itself.
  EXPECT_EQ(ErrorOf(OneTensor(absl::StrCat("\x80\x02}q", Number(0, 1), Text("w"), "h", Number(0, 1),
                                           "s.")))
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TorchZipTest, SurvivesAStackThatIsEmptyOrDeep) {
  for (const std::string& pickle :
       {std::string("."), std::string("t."), std::string("u."), std::string("R."),
        std::string("s."), std::string("b."), std::string("Q."), std::string("\x87."),
        std::string("(."), std::string("h\0.", 3), std::string("q\0.", 3), std::string("}u."),
        std::string("")}) {
    EXPECT_EQ(ErrorOf(OneTensor("\x80\x02" + pickle)).code(), absl::StatusCode::kDataLoss);
  }
  const std::string deep(1 << 20, '\x85');
  EXPECT_EQ(ErrorOf(OneTensor(absl::StrCat("\x80\x02)", deep, "."))).code(),
            absl::StatusCode::kInvalidArgument);
  const std::string marks(1 << 20, '(');
  EXPECT_EQ(ErrorOf(OneTensor(absl::StrCat("\x80\x02", marks, "."))).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(ErrorOf(OneTensor(std::string(5 << 20, 'N'))).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(TorchZipTest, RefusesArchivesOfAnotherKind) {
  EXPECT_EQ(ErrorOf("").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ErrorOf("PK no archive at all, but longer than its end").code(),
            absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(ErrorOf(Zip({{"a/readme", "x"}})).message()), HasSubstr("data.pkl"));
  EXPECT_THAT(std::string(ErrorOf(Zip({{"a/data.pkl", "x"}}, /*method=*/8)).message()),
              HasSubstr("compressed"));
  EXPECT_THAT(std::string(ErrorOf(Zip({{"a/data.pkl", "x"}, {"b/data.pkl", "x"}})).message()),
              HasSubstr("more than one"));
  EXPECT_THAT(
      std::string(ErrorOf(Zip({{"a/data.pkl", "\x80\x02}."}, {"a/byteorder", "big"}})).message()),
      HasSubstr("little-endian"));
}

TEST(TorchZipTest, RefusesEveryTruncation) {
  const std::string whole = Golden();
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(ParseTorchZip("x", whole.substr(0, size)).ok()) << size;
  }
}

TEST(TorchZipTest, SurvivesEveryChangedByte) {
  const std::string whole = Golden();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char change : {'\x01', '\x80', '\xff'}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ change);
      const auto tensors = ParseTorchZip("x", damaged);
      if (!tensors.ok()) continue;
      // What is read lies in memory that is there.
      for (const auto& [name, tensor] : *tensors) at::count_nonzero(tensor);
    }
  }
}

}  // namespace
}  // namespace ddpo
