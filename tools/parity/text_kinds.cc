#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/bert_score.h"
#include "common/nn/clip_tokenizer.h"
#include "common/nn/json_config.h"
#include "common/nn/llama_tokenizer.h"
#include "common/nn/sentence_tokenizer.h"
#include "common/nn/tokenizer_config.h"
#include "tools/parity/kinds.h"

namespace ddpo {
namespace {

using TokenRows = std::vector<std::vector<int64_t>>;

// Rows of one length, filled up with `padding`; longer ones are cut.
at::Tensor Fill(const TokenRows& rows, int64_t width, int64_t padding, bool left) {
  at::Tensor ids = at::full({static_cast<int64_t>(rows.size()), width}, padding, at::kLong);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t size = std::min(width, static_cast<int64_t>(rows[i].size()));
    ids[static_cast<int64_t>(i)]
        .narrow(0, left ? width - size : 0, size)
        .copy_(at::tensor(rows[i], at::kLong).narrow(0, 0, size));
  }
  return ids;
}

int64_t Longest(const TokenRows& rows) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  return static_cast<int64_t>(longest);
}

// The width that the fixture expects. Tokenizers without a model_max_length pad to the longest
// text.
std::optional<int64_t> ExpectedWidth(const Fixture& fixture) {
  const auto expected = fixture.expected().find("input_ids");
  if (expected == fixture.expected().end() || expected->second.dim() != 2) return std::nullopt;
  return expected->second.size(1);
}

absl::StatusOr<at::Tensor> ClipTokens(const ClipTokenizer& tokenizer,
                                      const std::vector<std::string>& prompts) {
  TokenRows rows;
  for (const std::string& prompt : prompts) rows.push_back(tokenizer.Encode(prompt));
  return Fill(rows, tokenizer.model_max_length(), 0, false);
}

absl::StatusOr<at::Tensor> SentenceTokens(const Fixture& fixture, const std::string& dir,
                                          const std::string& model_type,
                                          const std::vector<std::string>& prompts) {
  DDPO_ASSIGN_OR_RETURN(const auto tokenizer, SentenceTokenizer::Load(dir, model_type));
  const auto width = ExpectedWidth(fixture);
  TokenRows rows;
  for (const std::string& prompt : prompts) {
    rows.push_back(tokenizer->Encode(prompt, width.value_or(tokenizer->max_length())));
  }
  return Fill(rows, width.value_or(Longest(rows)), tokenizer->pad(), false);
}

absl::StatusOr<at::Tensor> LlamaTokens(const Fixture& fixture, const std::string& dir,
                                       const std::vector<std::string>& prompts) {
  DDPO_ASSIGN_OR_RETURN(const auto tokenizer, LlamaTokenizer::Load(dir));
  DDPO_ASSIGN_OR_RETURN(const TokenizerConfig config, ReadTokenizerConfig(dir));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig file,
                        JsonConfig::ReadIfThere(JoinPath(dir, "tokenizer_config.json")));
  // The class that transformers makes of a LLaMA's tokenizer.json pads on the left.
  const bool fast = FileSystem::Real()->Exists(JoinPath(dir, "tokenizer.json"));
  DDPO_ASSIGN_OR_RETURN(const std::string side,
                        file.String("padding_side", fast && config.IsLlama() ? "left" : "right"));
  const std::string& padding = config.pad_token.empty() ? config.eos_token : config.pad_token;
  TokenRows rows;
  for (const std::string& prompt : prompts) {
    rows.push_back(tokenizer->Encode(prompt, /*add_special_tokens=*/true));
  }
  return Fill(rows, ExpectedWidth(fixture).value_or(Longest(rows)),
              tokenizer->TokenId(padding).value_or(0), side == "left");
}

absl::StatusOr<NamedTensors> Tokenize(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> prompts, fixture.Strings("prompts"));
  const std::string& dir = model.dir();
  const auto named = [](at::Tensor ids) { return NamedTensors{{"input_ids", std::move(ids)}}; };
  if (FileSystem::Real()->Exists(JoinPath(dir, "model_index.json"))) {
    DDPO_ASSIGN_OR_RETURN(const Pipeline* pipeline, model.pipeline());
    DDPO_ASSIGN_OR_RETURN(at::Tensor ids, ClipTokens(pipeline->tokenizer(), prompts));
    return named(std::move(ids));
  }
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(JoinPath(dir, "config.json")));
  DDPO_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type", ""));
  at::Tensor ids;
  if (model_type == "llava") {
    DDPO_ASSIGN_OR_RETURN(ids, LlamaTokens(fixture, dir, prompts));
  } else if (model_type.starts_with("clip")) {
    DDPO_ASSIGN_OR_RETURN(const auto tokenizer, ClipTokenizer::Load(dir));
    DDPO_ASSIGN_OR_RETURN(ids, ClipTokens(*tokenizer, prompts));
  } else {
    DDPO_ASSIGN_OR_RETURN(ids, SentenceTokens(fixture, dir, model_type, prompts));
  }
  return named(std::move(ids));
}

absl::StatusOr<NamedTensors> BertScores(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> candidates, fixture.Strings("candidates"));
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> references, fixture.Strings("references"));
  BertScorerOptions options;
  options.encoder_dir = model.dir();
  options.dtype = model.dtype();
  options.device = model.device();
  if (fixture.HasParam("num_layers")) {
    DDPO_ASSIGN_OR_RETURN(options.layer, fixture.Integer("num_layers"));
  }
  if (fixture.HasParam("baseline")) {  // a file of the model's folder
    DDPO_ASSIGN_OR_RETURN(const std::string name, fixture.String("baseline"));
    options.baseline_file = JoinPath(model.dir(), name);
  }
  DDPO_ASSIGN_OR_RETURN(const auto scorer, BertScorer::Load(options));
  DDPO_ASSIGN_OR_RETURN(const std::vector<BertScore> scores, scorer->Score(candidates, references));
  const auto count = static_cast<int64_t>(scores.size());
  at::Tensor precision = at::empty({count}), recall = at::empty({count}), f1 = at::empty({count});
  for (int64_t i = 0; i < count; ++i) {
    const BertScore& score = scores[static_cast<size_t>(i)];
    precision[i] = score.precision;
    recall[i] = score.recall;
    f1[i] = score.f1;
  }
  return NamedTensors{{"precision", precision}, {"recall", recall}, {"f1", f1}};
}

}  // namespace

void AddTextKinds(ParityKinds& kinds) {
  kinds["tokenize"] = Tokenize;
  kinds["bertscore"] = BertScores;
}

}  // namespace ddpo
