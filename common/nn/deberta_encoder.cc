// DeBERTa (arXiv 2006.03654), version 1: attention by content and by relative position apart.

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/nn/blocks.h"
#include "common/nn/sentence_encoder.h"

namespace ddpo {
namespace {

struct DebertaSizes : EncoderSizes {
  int64_t embedding = 0;
  bool relative_attention = false;
  bool content_to_position = false, position_to_content = false;
  int64_t max_relative_positions = 0;
  bool position_biased_input = true;

  // Kinds of scores that are summed.
  int64_t score_kinds() const { return 1 + content_to_position + position_to_content; }
};

// pos_att_type: a list, or the same with | between as older folders have it.
absl::Status ReadPositionKinds(const JsonConfig& config, DebertaSizes* sizes) {
  if (!config.Has("pos_att_type")) return absl::OkStatus();
  const nlohmann::json& value = config.json()["pos_att_type"];
  const std::string expected = "c2p, p2c, or both";
  std::vector<std::string> kinds;
  if (value.is_string()) {
    kinds = absl::StrSplit(absl::AsciiStrToLower(value.get<std::string>()), '|');
  } else if (value.is_array()) {
    for (const nlohmann::json& kind : value) {
      if (!kind.is_string()) return config.Error("pos_att_type", expected);
      kinds.push_back(kind);
    }
  } else {
    return config.Error("pos_att_type", expected);
  }
  for (std::string& kind : kinds) {
    absl::StripAsciiWhitespace(&kind);
    bool* known = kind == "c2p"   ? &sizes->content_to_position
                  : kind == "p2c" ? &sizes->position_to_content
                                  : nullptr;
    if (known == nullptr || *known) return config.Error("pos_att_type", expected);
    *known = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<DebertaSizes> ReadSizes(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(EncoderSizes common, ReadEncoderSizes(config, {.vocabulary = 50265,
                                                                       .hidden = 768,
                                                                       .intermediate = 3072,
                                                                       .layers = 12,
                                                                       .heads = 12,
                                                                       .positions = 512,
                                                                       .token_types = 0,
                                                                       .layer_norm_eps = 1e-7}));
  DebertaSizes sizes{std::move(common)};
  DDPO_ASSIGN_OR_RETURN(sizes.embedding, config.Int("embedding_size", sizes.hidden));
  DDPO_ASSIGN_OR_RETURN(sizes.relative_attention, config.Bool("relative_attention", false));
  DDPO_ASSIGN_OR_RETURN(sizes.position_biased_input, config.Bool("position_biased_input", true));
  DDPO_ASSIGN_OR_RETURN(sizes.max_relative_positions, config.Int("max_relative_positions", -1, -1));
  if (sizes.max_relative_positions < 1) sizes.max_relative_positions = sizes.positions;
  DDPO_RETURN_IF_ERROR(config.Require("talking_head", {"false"}));
  DDPO_RETURN_IF_ERROR(ReadPositionKinds(config, &sizes));
  return sizes;
}

// The scores of queries for keys that lie at some distance; in transformers,
// DisentangledSelfAttention.
class DisentangledAttention {
 public:
  static absl::StatusOr<DisentangledAttention> Load(WeightLoader& loader, const std::string& prefix,
                                                    const DebertaSizes& sizes) {
    const auto key = [&](const char* name) { return absl::StrCat(prefix, name); };
    const int64_t d = sizes.hidden;
    DisentangledAttention attention;
    attention.heads_ = sizes.heads;
    attention.score_kinds_ = sizes.score_kinds();
    DDPO_ASSIGN_OR_RETURN(attention.in_proj_,
                          Linear::Load(loader, key("in_proj"), d, 3 * d, /*bias=*/false));
    DDPO_ASSIGN_OR_RETURN(attention.query_bias_, loader.Take(key("q_bias"), {d}));
    DDPO_ASSIGN_OR_RETURN(attention.value_bias_, loader.Take(key("v_bias"), {d}));
    if (!sizes.relative_attention) return attention;
    if (sizes.content_to_position) {
      DDPO_ASSIGN_OR_RETURN(attention.position_key_,
                            Linear::Load(loader, key("pos_proj"), d, d, /*bias=*/false));
    }
    if (sizes.position_to_content) {
      DDPO_ASSIGN_OR_RETURN(attention.position_query_,
                            Linear::Load(loader, key("pos_q_proj"), d, d));
    }
    return attention;
  }

  // x [B,L,D]; keys [B,1,1,L] bool: who may be attended to; relative [2S,D]: embeddings of the
  // offsets −S … S−1, beyond which the last one holds; offset [L,L] int64: a query's position less
  // a key's. Both undefined without relative attention.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& keys, const at::Tensor& relative,
                     const at::Tensor& offset) const {
    // The heads' queries, keys and values lie side by side.
    const std::vector<at::Tensor> parts = SplitHeads(in_proj_.Forward(x)).chunk(3, -1);
    const at::Tensor& key = parts[1];
    const double scale = std::sqrt(static_cast<double>(key.size(-1) * score_kinds_));
    const at::Tensor query = (parts[0] + HeadsOf(query_bias_)) / scale;
    const at::Tensor value = parts[2] + HeadsOf(value_bias_);
    at::Tensor scores = query.matmul(key.transpose(-1, -2));
    const auto at_offsets = [&](const at::Tensor& by_offset, const at::Tensor& which) {
      const int64_t span = relative.size(0) / 2;
      return by_offset.gather(-1, (which + span).clamp(0, 2 * span - 1).expand_as(scores));
    };
    if (position_key_.has_value()) {
      const at::Tensor position_key = HeadsOf(position_key_->Forward(relative));
      scores = scores + at_offsets(query.matmul(position_key.transpose(-1, -2)), offset);
    }
    if (position_query_.has_value()) {
      const at::Tensor position_query = HeadsOf(position_query_->Forward(relative)) / scale;
      const at::Tensor by_offset = key.matmul(position_query.transpose(-1, -2));
      scores = scores + at_offsets(by_offset, -offset).transpose(-1, -2);
    }
    const double none = -std::numeric_limits<double>::infinity();
    const at::Tensor weights = scores.masked_fill(keys.logical_not(), none).softmax(-1);
    return weights.matmul(value).transpose(1, 2).reshape(x.sizes());
  }

 private:
  // [B,L,H·N] -> [B,H,L,N]
  at::Tensor SplitHeads(const at::Tensor& x) const {
    return x.view({x.size(0), x.size(1), heads_, -1}).transpose(1, 2);
  }
  // [N,D] or [D] -> [1,H,N,D/H] or [1,H,1,D/H]
  at::Tensor HeadsOf(const at::Tensor& x) const { return SplitHeads(x.view({1, -1, x.size(-1)})); }

  Linear in_proj_;
  at::Tensor query_bias_, value_bias_;  // [D]
  std::optional<Linear> position_key_, position_query_;
  int64_t heads_ = 1;
  int64_t score_kinds_ = 1;
};

class DebertaLayer {
 public:
  static absl::StatusOr<DebertaLayer> Load(WeightLoader& loader, const std::string& prefix,
                                           const DebertaSizes& sizes) {
    const auto key = [&](const char* name) { return absl::StrCat(prefix, name); };
    const int64_t d = sizes.hidden, inner = sizes.intermediate;
    const double eps = sizes.layer_norm_eps;
    DebertaLayer layer;
    layer.activation_ = sizes.activation;
    DDPO_ASSIGN_OR_RETURN(layer.attention_,
                          DisentangledAttention::Load(loader, key("attention.self."), sizes));
    DDPO_ASSIGN_OR_RETURN(layer.attended_,
                          Linear::Load(loader, key("attention.output.dense"), d, d));
    DDPO_ASSIGN_OR_RETURN(layer.attended_norm_,
                          LayerNorm::Load(loader, key("attention.output.LayerNorm"), d, eps));
    DDPO_ASSIGN_OR_RETURN(layer.inner_, Linear::Load(loader, key("intermediate.dense"), d, inner));
    DDPO_ASSIGN_OR_RETURN(layer.output_, Linear::Load(loader, key("output.dense"), inner, d));
    DDPO_ASSIGN_OR_RETURN(layer.output_norm_,
                          LayerNorm::Load(loader, key("output.LayerNorm"), d, eps));
    return layer;
  }

  // As DisentangledAttention::Forward.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& keys, const at::Tensor& relative,
                     const at::Tensor& offset) const {
    const at::Tensor attended = attention_.Forward(x, keys, relative, offset);
    const at::Tensor residual = attended_norm_.Forward(attended_.Forward(attended) + x);
    const at::Tensor inner = Activate(activation_, inner_.Forward(residual));
    return output_norm_.Forward(output_.Forward(inner) + residual);
  }

 private:
  DisentangledAttention attention_;
  Linear attended_, inner_, output_;
  LayerNorm attended_norm_, output_norm_;
  std::string activation_;
};

class DebertaEncoder : public SentenceEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<SentenceEncoder>> Load(const JsonConfig& config,
                                                               WeightLoader& loader,
                                                               const std::string& prefix,
                                                               int64_t layer) {
    auto encoder = std::make_unique<DebertaEncoder>();
    DDPO_ASSIGN_OR_RETURN(const DebertaSizes sizes, ReadSizes(config));
    if (layer < 0 || layer > sizes.layers) {
      return config.Error("num_hidden_layers", absl::StrCat("at least the chosen layer, ", layer));
    }
    encoder->positions_ = sizes.positions;
    DDPO_RETURN_IF_ERROR(encoder->LoadEmbeddings(loader, prefix, sizes));
    if (sizes.relative_attention) {
      DDPO_ASSIGN_OR_RETURN(encoder->relative_,
                            loader.Take(absl::StrCat(prefix, "encoder.rel_embeddings.weight"),
                                        {2 * sizes.max_relative_positions, sizes.hidden}));
    }
    for (int64_t i = 0; i < sizes.layers; ++i) {
      const std::string name = absl::StrCat(prefix, "encoder.layer.", i, ".");
      if (i >= layer) {
        loader.Ignore(name);
        continue;
      }
      DDPO_ASSIGN_OR_RETURN(encoder->layers_.emplace_back(),
                            DebertaLayer::Load(loader, name, sizes));
    }
    return encoder;
  }

  at::Tensor Forward(const at::Tensor& ids, const at::Tensor& is_token) const override {
    const at::NoGradGuard no_grad;
    const int64_t length = ids.size(1);
    const at::Tensor tokens = is_token.to(words_.device());
    const at::Tensor keys = tokens.view({ids.size(0), 1, 1, length});
    at::Tensor hidden = at::embedding(words_, ids.to(words_.device()));
    if (position_embeddings_.defined()) {
      hidden = hidden + position_embeddings_.narrow(0, 0, length);
    }
    if (first_type_.defined()) hidden = hidden + first_type_;
    if (projection_.has_value()) hidden = projection_->Forward(hidden);
    hidden = norm_.Forward(hidden) * tokens.unsqueeze(2);
    at::Tensor relative, offset;
    if (relative_.defined()) {
      // Offsets beyond the sentence's length cannot occur.
      const int64_t most = relative_.size(0) / 2, span = std::min(length, most);
      relative = relative_.narrow(0, most - span, 2 * span);
      const at::Tensor at = at::arange(length, tokens.options().dtype(at::kLong));
      offset = at.unsqueeze(1) - at.unsqueeze(0);
    }
    for (const DebertaLayer& layer : layers_) {
      hidden = layer.Forward(hidden, keys, relative, offset);
    }
    return hidden.to(at::kFloat);
  }

  int64_t vocabulary() const override { return words_.size(0); }
  // Where all positions are relative this is no bound of the network's, but that of its training.
  int64_t positions() const override { return positions_; }

 private:
  absl::Status LoadEmbeddings(WeightLoader& loader, const std::string& prefix,
                              const DebertaSizes& sizes) {
    const auto key = [&](const char* name) { return absl::StrCat(prefix, "embeddings.", name); };
    const int64_t width = sizes.embedding;
    DDPO_ASSIGN_OR_RETURN(words_,
                          loader.Take(key("word_embeddings.weight"), {sizes.vocabulary, width}));
    if (sizes.position_biased_input) {
      DDPO_ASSIGN_OR_RETURN(position_embeddings_, loader.Take(key("position_embeddings.weight"),
                                                              {sizes.positions, width}));
    } else {
      loader.Ignore(key("position_embeddings."));
    }
    if (sizes.token_types > 0) {
      DDPO_ASSIGN_OR_RETURN(const at::Tensor types, loader.Take(key("token_type_embeddings.weight"),
                                                                {sizes.token_types, width}));
      first_type_ = types[0];
    }
    if (width != sizes.hidden) {
      DDPO_ASSIGN_OR_RETURN(projection_, Linear::Load(loader, key("embed_proj"), width,
                                                      sizes.hidden, /*bias=*/false));
    }
    DDPO_ASSIGN_OR_RETURN(
        norm_, LayerNorm::Load(loader, key("LayerNorm"), sizes.hidden, sizes.layer_norm_eps));
    return absl::OkStatus();
  }

  at::Tensor words_;                // [V,E]
  at::Tensor position_embeddings_;  // [P,E]; undefined where positions are relative only
  at::Tensor first_type_;           // [E]: there is but one sentence; undefined without types
  std::optional<Linear> projection_;
  LayerNorm norm_;
  at::Tensor relative_;  // [2R,D], of offsets −R … R−1; undefined without relative attention
  std::vector<DebertaLayer> layers_;
  int64_t positions_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SentenceEncoder>> LoadDebertaEncoder(const JsonConfig& config,
                                                                    WeightLoader& loader,
                                                                    const std::string& prefix,
                                                                    int64_t layer) {
  return DebertaEncoder::Load(config, loader, prefix, layer);
}

}  // namespace ddpo
