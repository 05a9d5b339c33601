#include "common/nn/bert_score_layers.h"

#include <utility>

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace ddpo {
namespace {

constexpr std::pair<const char*, int64_t> kLayers[] = {
    {"bert-base-uncased", 9},
    {"bert-large-uncased", 18},
    {"bert-base-cased-finetuned-mrpc", 9},
    {"bert-base-multilingual-cased", 9},
    {"bert-base-chinese", 8},
    {"roberta-base", 10},
    {"roberta-large", 17},
    {"roberta-large-mnli", 19},
    {"roberta-base-openai-detector", 7},
    {"roberta-large-openai-detector", 15},
    {"allenai/scibert_scivocab_uncased", 8},
    {"allenai/scibert_scivocab_cased", 9},
    {"nfliu/scibert_basevocab_uncased", 9},
    {"google/bert_uncased_L-2_H-128_A-2", 1},
    {"google/bert_uncased_L-2_H-256_A-4", 1},
    {"google/bert_uncased_L-2_H-512_A-8", 1},
    {"google/bert_uncased_L-2_H-768_A-12", 2},
    {"google/bert_uncased_L-4_H-128_A-2", 3},
    {"google/bert_uncased_L-4_H-256_A-4", 3},
    {"google/bert_uncased_L-4_H-512_A-8", 3},
    {"google/bert_uncased_L-4_H-768_A-12", 3},
    {"google/bert_uncased_L-6_H-128_A-2", 5},
    {"google/bert_uncased_L-6_H-256_A-4", 5},
    {"google/bert_uncased_L-6_H-512_A-8", 5},
    {"google/bert_uncased_L-6_H-768_A-12", 5},
    {"google/bert_uncased_L-8_H-128_A-2", 7},
    {"google/bert_uncased_L-8_H-256_A-4", 7},
    {"google/bert_uncased_L-8_H-512_A-8", 6},
    {"google/bert_uncased_L-8_H-768_A-12", 7},
    {"google/bert_uncased_L-10_H-128_A-2", 8},
    {"google/bert_uncased_L-10_H-256_A-4", 8},
    {"google/bert_uncased_L-10_H-512_A-8", 9},
    {"google/bert_uncased_L-10_H-768_A-12", 8},
    {"google/bert_uncased_L-12_H-128_A-2", 10},
    {"google/bert_uncased_L-12_H-256_A-4", 11},
    {"google/bert_uncased_L-12_H-512_A-8", 10},
    {"google/bert_uncased_L-12_H-768_A-12", 9},
    {"microsoft/deberta-base", 9},
    {"microsoft/deberta-base-mnli", 9},
    {"microsoft/deberta-large", 16},
    {"microsoft/deberta-large-mnli", 18},
    {"microsoft/deberta-xlarge", 18},
    {"microsoft/deberta-xlarge-mnli", 40},
    {"SpanBERT/spanbert-base-cased", 8},
    {"SpanBERT/spanbert-large-cased", 17},
    {"ProsusAI/finbert", 10},
    {"princeton-nlp/unsup-simcse-bert-base-uncased", 10},
    {"princeton-nlp/unsup-simcse-bert-large-uncased", 18},
    {"princeton-nlp/unsup-simcse-roberta-base", 8},
    {"princeton-nlp/unsup-simcse-roberta-large", 13},
    {"princeton-nlp/sup-simcse-bert-base-uncased", 10},
    {"princeton-nlp/sup-simcse-bert-large-uncased", 18},
    {"princeton-nlp/sup-simcse-roberta-base", 10},
    {"princeton-nlp/sup-simcse-roberta-large", 16},
    {"dbmdz/bert-base-turkish-cased", 10},
};

absl::string_view LastPart(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == absl::string_view::npos ? name : name.substr(slash + 1);
}

}  // namespace

std::optional<int64_t> BertScoreLayer(const std::string& name) {
  const absl::string_view last = LastPart(absl::StripSuffix(name, "/"));
  for (const auto& [model, layer] : kLayers) {
    if (last == LastPart(model)) return layer;
  }
  return std::nullopt;
}

}  // namespace ddpo
