#include "common/nn/bert_score.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/nn/bert_score_layers.h"
#include "common/nn/json_config.h"
#include "common/nn/model_digest.h"
#include "common/nn/network_options.h"
#include "common/nn/sentence_encoder.h"
#include "common/nn/sentence_tokenizer.h"

namespace ddpo {
namespace {

// Sentences of a forward pass and pairs of a matching, as bert-score has them.
constexpr size_t kBatch = 64;

// Scores of unrelated sentences, which rescaling maps to 0.
struct Baseline {
  float precision = 0, recall = 0, f1 = 0;
};

// The line of the layer in a file of lines `LAYER,P,R,F`, the first of which says just that.
absl::StatusOr<Baseline> ReadBaseline(const std::string& path, int64_t layer) {
  DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  const auto error = [&](size_t line, const std::string& expected) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", line + 1, ": expected ", expected));
  };
  if (absl::StripAsciiWhitespace(lines[0]) != "LAYER,P,R,F") return error(0, "`LAYER,P,R,F`");
  const auto row = static_cast<size_t>(layer + 1);
  const std::string expected = absl::StrCat("layer ", layer, " and its precision, recall and F1");
  if (row >= lines.size()) return error(lines.size() - 1, expected);
  const std::vector<std::string> fields = absl::StrSplit(lines[row], ',');
  int64_t number = 0;
  Baseline baseline;
  if (fields.size() != 4 || !absl::SimpleAtoi(fields[0], &number) || number != layer ||
      !absl::SimpleAtof(fields[1], &baseline.precision) ||
      !absl::SimpleAtof(fields[2], &baseline.recall) ||
      !absl::SimpleAtof(fields[3], &baseline.f1)) {
    return error(row, expected);
  }
  for (const float value : {baseline.precision, baseline.recall, baseline.f1}) {
    if (!std::isfinite(value) || value >= 1) return error(row, "baselines below 1");
  }
  return baseline;
}

absl::StatusOr<int64_t> DefaultLayer(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(JoinPath(dir, "config.json")));
  DDPO_ASSIGN_OR_RETURN(const std::string name, config.String("_name_or_path", ""));
  if (const auto layer = BertScoreLayer(name); layer.has_value()) return *layer;
  if (const auto layer = BertScoreLayer(dir); layer.has_value()) return *layer;
  return config.Error("_name_or_path",
                      "a model for which bert-score has chosen a layer, or a layer of your own "
                      "(bert_score.layer)");
}

absl::StatusOr<std::string> Digest(const BertScorerOptions& options, int64_t layer) {
  const std::string& dir = options.encoder_dir;
  std::vector<std::string> files;
  for (const char* name :
       {"config.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json"}) {
    if (FileSystem::Real()->Exists(JoinPath(dir, name))) files.emplace_back(name);
  }
  DDPO_ASSIGN_OR_RETURN(const std::string model, ModelDigest(dir, files));
  std::string baseline = "none";
  if (!options.baseline_file.empty()) {
    DDPO_ASSIGN_OR_RETURN(baseline, Sha256HexOfFile(options.baseline_file));
  }
  return Sha256Hex(absl::StrCat("bertscore 1 ", model, " layer=", layer, " baseline=", baseline,
                                " dtype=", options.dtype));
}

// A sentence's tokens in the encoder's eyes.
struct Embedded {
  at::Tensor directions;  // [L,D] float32, of length 1
  at::Tensor weights;     // [L] float32: 0 for cls and sep, else 1
};

// The mean of each token's best match, by weight. `best` [L].
double WeightedMean(const at::Tensor& best, const at::Tensor& weights) {
  return (best * (weights / weights.sum())).sum().item<double>();
}

float Rescale(double value, float baseline) {
  return (static_cast<float>(value) - baseline) / (1 - baseline);
}

}  // namespace

struct BertScorer::Impl {
  std::unique_ptr<SentenceTokenizer> tokenizer;
  std::unique_ptr<SentenceEncoder> encoder;
  std::optional<Baseline> baseline;
  int64_t layer = 0;
  int64_t max_length = 0;
  std::string digest;

  std::map<std::string, Embedded> Embed(absl::Span<const std::string> candidates,
                                        absl::Span<const std::string> references) const;
  void EmbedBatch(absl::Span<const std::pair<std::string, std::vector<int64_t>>> batch,
                  std::map<std::string, Embedded>* embedded) const;
  BertScore Match(const Embedded& candidate, const Embedded& reference, int64_t longest_candidate,
                  int64_t longest_reference) const;
};

BertScorer::BertScorer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BertScorer::~BertScorer() = default;

absl::StatusOr<std::unique_ptr<BertScorer>> BertScorer::Load(const BertScorerOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const NetworkOptions network,
                        ParseNetworkOptions(options.dtype, options.device));
  const std::string& dir = options.encoder_dir;
  auto impl = std::make_unique<Impl>();
  if (options.layer.has_value()) {
    impl->layer = *options.layer;
  } else {
    DDPO_ASSIGN_OR_RETURN(impl->layer, DefaultLayer(dir));
  }
  DDPO_ASSIGN_OR_RETURN(impl->encoder, LoadSentenceEncoder(dir, impl->layer, network));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(JoinPath(dir, "config.json")));
  DDPO_ASSIGN_OR_RETURN(const std::string family, config.String("model_type", ""));
  DDPO_ASSIGN_OR_RETURN(impl->tokenizer, SentenceTokenizer::Load(dir, family));
  if (impl->tokenizer->vocabulary() > impl->encoder->vocabulary()) {
    return config.Error("vocab_size", absl::StrCat("a number for each of the tokenizer's ",
                                                   impl->tokenizer->vocabulary(), " tokens"));
  }
  impl->max_length = std::min(impl->tokenizer->max_length(), impl->encoder->positions());
  if (!options.baseline_file.empty()) {
    DDPO_ASSIGN_OR_RETURN(impl->baseline, ReadBaseline(options.baseline_file, impl->layer));
  }
  DDPO_ASSIGN_OR_RETURN(impl->digest, Digest(options, impl->layer));
  return std::unique_ptr<BertScorer>(new BertScorer(std::move(impl)));
}

const std::string& BertScorer::digest() const { return impl_->digest; }
int64_t BertScorer::layer() const { return impl_->layer; }
bool BertScorer::is_rescaled() const { return impl_->baseline.has_value(); }

// Each sentence once, those of like length together.
std::map<std::string, Embedded> BertScorer::Impl::Embed(
    absl::Span<const std::string> candidates, absl::Span<const std::string> references) const {
  std::map<std::string, std::vector<int64_t>> tokens;
  for (const auto& sentences : {candidates, references}) {
    for (const std::string& sentence : sentences) {
      if (!tokens.contains(sentence)) tokens[sentence] = tokenizer->Encode(sentence, max_length);
    }
  }
  std::vector<std::pair<std::string, std::vector<int64_t>>> sorted(tokens.begin(), tokens.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.size() > b.second.size(); });
  std::map<std::string, Embedded> embedded;
  const auto all = absl::MakeConstSpan(sorted);
  for (size_t first = 0; first < all.size(); first += kBatch) {
    EmbedBatch(all.subspan(first, kBatch), &embedded);
  }
  return embedded;
}

void BertScorer::Impl::EmbedBatch(
    absl::Span<const std::pair<std::string, std::vector<int64_t>>> batch,
    std::map<std::string, Embedded>* embedded) const {
  const auto rows = static_cast<int64_t>(batch.size());
  const auto length = static_cast<int64_t>(batch.front().second.size());  // the longest
  at::Tensor ids = at::full({rows, length}, tokenizer->pad(), at::kLong);
  at::Tensor is_token = at::zeros({rows, length}, at::kBool);
  for (int64_t i = 0; i < rows; ++i) {
    const std::vector<int64_t>& tokens = batch[static_cast<size_t>(i)].second;
    const auto size = static_cast<int64_t>(tokens.size());
    ids[i].narrow(0, 0, size).copy_(at::tensor(tokens, at::kLong));
    is_token[i].narrow(0, 0, size).fill_(true);
  }
  const at::Tensor hidden = encoder->Forward(ids, is_token);
  const at::Tensor directions = hidden / hidden.norm(2, {-1}, /*keepdim=*/true);
  const at::Tensor counted = ids.ne(tokenizer->cls()).logical_and(ids.ne(tokenizer->sep()));
  const at::Tensor weights = counted.to(directions.options());
  for (int64_t i = 0; i < rows; ++i) {
    const auto& [sentence, tokens] = batch[static_cast<size_t>(i)];
    const auto size = static_cast<int64_t>(tokens.size());
    (*embedded)[sentence] = {.directions = directions[i].narrow(0, 0, size),
                             .weights = weights[i].narrow(0, 0, size)};
  }
}

// Eq. (1)-(3) of BERTScore. The lengths are those of the batch's longest sentences.
BertScore BertScorer::Impl::Match(const Embedded& candidate, const Embedded& reference,
                                  int64_t longest_candidate, int64_t longest_reference) const {
  const int64_t candidate_length = candidate.weights.size(0);
  const int64_t reference_length = reference.weights.size(0);
  BertScore score;
  if (candidate_length > 2 && reference_length > 2) {
    const at::Tensor similarity = candidate.directions.matmul(reference.directions.t());
    at::Tensor best_in_reference = similarity.amax(1), best_in_candidate = similarity.amax(0);
    if (reference_length < longest_reference) best_in_reference = best_in_reference.clamp_min(0);
    if (candidate_length < longest_candidate) best_in_candidate = best_in_candidate.clamp_min(0);
    score.precision = WeightedMean(best_in_reference, candidate.weights);
    score.recall = WeightedMean(best_in_candidate, reference.weights);
    const double sum = score.precision + score.recall;
    if (sum != 0) score.f1 = 2 * score.precision * score.recall / sum;
  }
  if (baseline.has_value()) {
    score.precision = Rescale(score.precision, baseline->precision);
    score.recall = Rescale(score.recall, baseline->recall);
    score.f1 = Rescale(score.f1, baseline->f1);
  }
  return score;
}

absl::StatusOr<std::vector<BertScore>> BertScorer::Score(
    absl::Span<const std::string> candidates, absl::Span<const std::string> references) const {
  if (candidates.size() != references.size()) {
    return absl::InvalidArgumentError(absl::StrCat("BERTScore of ", candidates.size(),
                                                   " candidates and ", references.size(),
                                                   " references, expected as many of each"));
  }
  const at::NoGradGuard no_grad;
  std::vector<BertScore> scores;
  try {
    const std::map<std::string, Embedded> embedded = impl_->Embed(candidates, references);
    for (size_t first = 0; first < candidates.size(); first += kBatch) {
      const size_t end = std::min(candidates.size(), first + kBatch);
      int64_t longest_candidate = 0, longest_reference = 0;
      for (size_t i = first; i < end; ++i) {
        longest_candidate = std::max(longest_candidate, embedded.at(candidates[i]).weights.size(0));
        longest_reference = std::max(longest_reference, embedded.at(references[i]).weights.size(0));
      }
      for (size_t i = first; i < end; ++i) {
        scores.push_back(impl_->Match(embedded.at(candidates[i]), embedded.at(references[i]),
                                      longest_candidate, longest_reference));
        if (!std::isfinite(scores.back().precision) || !std::isfinite(scores.back().recall)) {
          return absl::InvalidArgumentError(
              absl::StrCat("BERTScore of `", candidates[i], "` and `", references[i],
                           "` is not finite: one of them has no words"));
        }
      }
    }
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("BERTScore: ", error.what_without_backtrace()));
  }
  return scores;
}

}  // namespace ddpo
