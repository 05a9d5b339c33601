// BERT (arXiv 1810.04805) and RoBERTa (arXiv 1907.11692), which differs from it in where positions
// start.

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/blocks.h"
#include "common/nn/sentence_encoder.h"

namespace ddpo {
namespace {

// transformers' BertLayer: each layer norm stands after its residual connection.
class BertLayer {
 public:
  static absl::StatusOr<BertLayer> Load(WeightLoader& loader, const std::string& prefix,
                                        const EncoderSizes& sizes) {
    const auto key = [&](const char* name) { return absl::StrCat(prefix, name); };
    const int64_t d = sizes.hidden, inner = sizes.intermediate;
    const double eps = sizes.layer_norm_eps;
    BertLayer layer;
    layer.heads_ = sizes.heads;
    layer.activation_ = sizes.activation;
    DDPO_ASSIGN_OR_RETURN(layer.query_, Linear::Load(loader, key("attention.self.query"), d, d));
    DDPO_ASSIGN_OR_RETURN(layer.key_, Linear::Load(loader, key("attention.self.key"), d, d));
    DDPO_ASSIGN_OR_RETURN(layer.value_, Linear::Load(loader, key("attention.self.value"), d, d));
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

  // x [B,L,D], keys [B,1,1,L] bool: who may be attended to -> [B,L,D].
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& keys) const {
    const auto split_heads = [&](const at::Tensor& t) {
      return t.view({x.size(0), x.size(1), heads_, -1}).transpose(1, 2);
    };
    const at::Tensor attended = at::scaled_dot_product_attention(
        split_heads(query_.Forward(x)), split_heads(key_.Forward(x)),
        split_heads(value_.Forward(x)), keys);
    const at::Tensor joined = attended_.Forward(attended.transpose(1, 2).reshape(x.sizes()));
    const at::Tensor residual = attended_norm_.Forward(x + joined);
    const at::Tensor inner = Activate(activation_, inner_.Forward(residual));
    return output_norm_.Forward(residual + output_.Forward(inner));
  }

 private:
  Linear query_, key_, value_, attended_, inner_, output_;
  LayerNorm attended_norm_, output_norm_;
  int64_t heads_ = 1;
  std::string activation_;
};

class BertEncoder : public SentenceEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<SentenceEncoder>> Load(const JsonConfig& config,
                                                               WeightLoader& loader,
                                                               const std::string& prefix,
                                                               int64_t layer) {
    auto encoder = std::make_unique<BertEncoder>();
    DDPO_ASSIGN_OR_RETURN(const EncoderSizes sizes, encoder->ReadConfig(config));
    if (layer < 0 || layer > sizes.layers) {
      return config.Error("num_hidden_layers", absl::StrCat("at least the chosen layer, ", layer));
    }
    const auto key = [&](const char* name) { return absl::StrCat(prefix, "embeddings.", name); };
    DDPO_ASSIGN_OR_RETURN(encoder->words_, loader.Take(key("word_embeddings.weight"),
                                                       {sizes.vocabulary, sizes.hidden}));
    DDPO_ASSIGN_OR_RETURN(
        encoder->position_embeddings_,
        loader.Take(key("position_embeddings.weight"), {sizes.positions, sizes.hidden}));
    DDPO_ASSIGN_OR_RETURN(const at::Tensor types, loader.Take(key("token_type_embeddings.weight"),
                                                              {sizes.token_types, sizes.hidden}));
    encoder->first_type_ = types[0];
    DDPO_ASSIGN_OR_RETURN(encoder->norm_, LayerNorm::Load(loader, key("LayerNorm"), sizes.hidden,
                                                          sizes.layer_norm_eps));
    for (int64_t i = 0; i < sizes.layers; ++i) {
      const std::string name = absl::StrCat(prefix, "encoder.layer.", i, ".");
      if (i >= layer) {
        loader.Ignore(name);
        continue;
      }
      DDPO_ASSIGN_OR_RETURN(encoder->layers_.emplace_back(), BertLayer::Load(loader, name, sizes));
    }
    return encoder;
  }

  at::Tensor Forward(const at::Tensor& ids, const at::Tensor& is_token) const override {
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = ids.to(words_.device());
    const at::Tensor keys = is_token.to(words_.device()).view({ids.size(0), 1, 1, ids.size(1)});
    at::Tensor hidden = norm_.Forward(at::embedding(words_, tokens) + first_type_ +
                                      at::embedding(position_embeddings_, Positions(tokens)));
    for (const BertLayer& layer : layers_) hidden = layer.Forward(hidden, keys);
    return hidden.to(at::kFloat);
  }

  int64_t vocabulary() const override { return words_.size(0); }
  int64_t positions() const override {
    return position_embeddings_.size(0) - (roberta_ ? padding_ + 1 : 0);
  }

 private:
  absl::StatusOr<EncoderSizes> ReadConfig(const JsonConfig& config) {
    DDPO_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type", ""));
    roberta_ = model_type == "roberta";
    DDPO_ASSIGN_OR_RETURN(const EncoderSizes sizes,
                          ReadEncoderSizes(config, {.vocabulary = roberta_ ? 50265 : 30522,
                                                    .hidden = 768,
                                                    .intermediate = 3072,
                                                    .layers = 12,
                                                    .heads = 12,
                                                    .positions = 512,
                                                    .token_types = 2,
                                                    .layer_norm_eps = 1e-12}));
    if (sizes.token_types < 1) return config.Error("type_vocab_size", "at least 1");
    DDPO_RETURN_IF_ERROR(config.Require("position_embedding_type", {R"("absolute")"}));
    DDPO_RETURN_IF_ERROR(config.Require("is_decoder", {"false"}));
    if (roberta_) {
      DDPO_ASSIGN_OR_RETURN(padding_, config.Int("pad_token_id", 1, 0));
      if (sizes.positions < padding_ + 4) {
        return config.Error("max_position_embeddings",
                            absl::StrCat("more than pad_token_id (", padding_, ") and a sentence"));
      }
    }
    return sizes;
  }

  // [B,L] or, for all rows, [L]. RoBERTa counts from padding + 1, padding itself left out.
  at::Tensor Positions(const at::Tensor& tokens) const {
    if (!roberta_) return at::arange(tokens.size(1), tokens.options());
    const at::Tensor counts = tokens.ne(padding_).to(at::kLong);
    return counts.cumsum(1) * counts + padding_;
  }

  at::Tensor words_;                // [V,D]
  at::Tensor position_embeddings_;  // [P,D]
  at::Tensor first_type_;           // [D]: there is but one sentence
  LayerNorm norm_;
  std::vector<BertLayer> layers_;
  bool roberta_ = false;
  int64_t padding_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SentenceEncoder>> LoadBertEncoder(const JsonConfig& config,
                                                                 WeightLoader& loader,
                                                                 const std::string& prefix,
                                                                 int64_t layer) {
  return BertEncoder::Load(config, loader, prefix, layer);
}

}  // namespace ddpo
