#include "common/nn/byte_level_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/bpe.h"
#include "common/nn/json_config.h"
#include "common/nn/tokenizer_steps.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

class ByteLevelBpe : public SubwordModel {
 public:
  ByteLevelBpe(BytePairEncoder encoder, PreTokenizer words)
      : encoder_(std::move(encoder)), words_(std::move(words)) {
    for (const auto& [id, token] : encoder_.tokens()) vocabulary_ = std::max(vocabulary_, id + 1);
  }

  void Append(const std::string& text, std::vector<int64_t>* ids) const override {
    for (const Word& word : words_({{text, false}})) encoder_.Encode(word.text, ids);
  }
  std::optional<int64_t> TokenId(const std::string& token) const override {
    return encoder_.TokenId(token);
  }
  int64_t vocabulary() const override { return vocabulary_; }

 private:
  const BytePairEncoder encoder_;
  const PreTokenizer words_;
  int64_t vocabulary_ = 0;
};

// The lines after the first, which names the format's version.
absl::StatusOr<Json> ReadMerges(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Json merges = Json::array();
  bool first = true;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    absl::ConsumeSuffix(&line, "\r");
    if (!std::exchange(first, false) && !line.empty()) merges.push_back(std::string(line));
  }
  return merges;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SubwordModel>> LoadByteLevelBpe(const std::string& dir,
                                                               const std::string& unknown) {
  const std::string path = JoinPath(dir, "vocab.json");
  DDPO_ASSIGN_OR_RETURN(const JsonConfig vocabulary, JsonConfig::Read(path));
  DDPO_ASSIGN_OR_RETURN(Json merges, ReadMerges(JoinPath(dir, "merges.txt")));
  const JsonConfig model = JsonConfig::Of(path, {{"type", "BPE"},
                                                 {"vocab", vocabulary.json()},
                                                 {"merges", std::move(merges)},
                                                 {"unk_token", unknown}});
  DDPO_ASSIGN_OR_RETURN(BytePairEncoder encoder, BytePairEncoder::Load(model));
  // Whether a space comes first is for the caller to say.
  DDPO_ASSIGN_OR_RETURN(
      PreTokenizer words,
      MakePreTokenizer(JsonConfig::Of(path, {{"type", "ByteLevel"}, {"add_prefix_space", false}})));
  return std::make_unique<ByteLevelBpe>(std::move(encoder), std::move(words));
}

}  // namespace ddpo
