// The header of a safetensors file, as policy updates bring one over the wire.

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/tensors/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace ddpo::fuzz {
namespace {

constexpr size_t kLengthBytes = 8;

std::string File(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(kLengthBytes, '\0');
  std::memcpy(file.data(), &length, kLengthBytes);
  return file + header + data;
}

// A number of the header becomes another, so that it stays JSON.
std::string ReplaceNumber(std::string header, Random& random) {
  const size_t start = header.find_first_of("0123456789", random.Below(header.size() + 1));
  if (start == std::string::npos) return header;
  const size_t end = header.find_first_not_of("0123456789", start);
  return header.replace(start, end - start, absl::StrCat(random.Number()));
}

class SafetensorsTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override {
    return {SerializeSafetensors({{"a", at::ones({2, 3})}, {"b", at::zeros({0, 4})}}, {{"k", "v"}}),
            SerializeSafetensors({{"half", at::ones({5}, at::kHalf)},
                                  {"number", at::tensor(int64_t{3})},
                                  {"switch", at::ones({3}, at::kBool)}}),
            SerializeSafetensors({})};
  }

  std::string Mutate(const std::string& input, Random& random) override {
    uint64_t length = 0;
    if (input.size() >= kLengthBytes) std::memcpy(&length, input.data(), kLengthBytes);
    if (random.OneIn(4) || input.size() < kLengthBytes || length > input.size() - kLengthBytes) {
      return MutateBytes(input, random);
    }
    const std::string header = input.substr(kLengthBytes, length);
    return File(random.OneIn(3) ? MutateBytes(header, random) : ReplaceNumber(header, random),
                input.substr(kLengthBytes + length));
  }

  bool Run(const std::string& input) override {
    const auto contents = ParseSafetensors(input);
    if (!contents.ok()) {
      Require(absl::IsDataLoss(contents.status()), contents.status().ToString());
      return false;
    }
    size_t bytes = 0;
    for (const auto& [name, tensor] : contents->tensors) {
      bytes += tensor.nbytes();
      // Reads every byte.
      Require(tensor.to(at::kDouble).numel() == tensor.numel(), name);
    }
    Require(bytes <= input.size(), "the tensors have more bytes than the file");
    Require(ParseSafetensors(SerializeSafetensors(contents->tensors, contents->metadata)).ok(),
            "what was read cannot be written and read again");
    return true;
  }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<SafetensorsTarget>(); }

}  // namespace ddpo::fuzz
