#include "common/nn/sentence_encoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<EncoderSizes> ReadEncoderSizes(const JsonConfig& config,
                                              const EncoderSizes& defaults) {
  EncoderSizes sizes;
  DDPO_ASSIGN_OR_RETURN(sizes.vocabulary,
                        config.Int("vocab_size", defaults.vocabulary, 1, int64_t{1} << 31));
  DDPO_ASSIGN_OR_RETURN(sizes.hidden, config.Int("hidden_size", defaults.hidden));
  DDPO_ASSIGN_OR_RETURN(sizes.intermediate, config.Int("intermediate_size", defaults.intermediate));
  DDPO_ASSIGN_OR_RETURN(sizes.layers, config.Int("num_hidden_layers", defaults.layers, 1, 1000));
  DDPO_ASSIGN_OR_RETURN(sizes.heads, config.Int("num_attention_heads", defaults.heads));
  DDPO_ASSIGN_OR_RETURN(sizes.positions, config.Int("max_position_embeddings", defaults.positions));
  DDPO_ASSIGN_OR_RETURN(sizes.token_types, config.Int("type_vocab_size", defaults.token_types, 0));
  DDPO_ASSIGN_OR_RETURN(sizes.layer_norm_eps,
                        config.Number("layer_norm_eps", defaults.layer_norm_eps));
  DDPO_RETURN_IF_ERROR(
      config.Require("hidden_act", {R"("gelu")", R"("gelu_new")", R"("gelu_pytorch_tanh")",
                                    R"("relu")", R"("silu")", R"("swish")"}));
  DDPO_ASSIGN_OR_RETURN(sizes.activation, config.String("hidden_act", defaults.activation));
  if (sizes.hidden % sizes.heads != 0) {
    return config.Error("num_attention_heads",
                        absl::StrCat("a number that divides hidden_size (", sizes.hidden, ")"));
  }
  return sizes;
}

at::Tensor Activate(const std::string& name, const at::Tensor& x) {
  if (name == "relu") return at::relu(x);
  if (name == "silu" || name == "swish") return at::silu(x);
  return at::gelu(x, name == "gelu" ? "none" : "tanh");
}

absl::StatusOr<std::unique_ptr<SentenceEncoder>> LoadSentenceEncoder(
    const std::string& dir, int64_t layer, const NetworkOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(JoinPath(dir, "config.json")));
  DDPO_RETURN_IF_ERROR(
      config.RequirePresent("model_type", {R"("bert")", R"("roberta")", R"("deberta")"}));
  DDPO_ASSIGN_OR_RETURN(const std::string family, config.String("model_type", ""));
  DDPO_ASSIGN_OR_RETURN(WeightLoader loader, WeightLoader::Open(dir, options));
  loader.RenameEnding("LayerNorm.gamma", "LayerNorm.weight");
  loader.RenameEnding("LayerNorm.beta", "LayerNorm.bias");
  const std::string with_head = absl::StrCat(family, ".");
  const std::string prefix = loader.ContainsPrefix(with_head) ? with_head : "";
  // What stands on the encoder for its tasks.
  for (const char* head : {"cls.", "classifier.", "lm_head.", "lm_predictions.", "pooler.",
                           "qa_outputs.", "mask_predictions."}) {
    loader.Ignore(head);
  }
  loader.Ignore(absl::StrCat(prefix, "pooler."));
  loader.Ignore(absl::StrCat(prefix, "embeddings.position_ids"));
  loader.Ignore(absl::StrCat(prefix, "embeddings.token_type_ids"));
  std::unique_ptr<SentenceEncoder> encoder;
  if (family == "deberta") {
    DDPO_ASSIGN_OR_RETURN(encoder, LoadDebertaEncoder(config, loader, prefix, layer));
  } else {
    DDPO_ASSIGN_OR_RETURN(encoder, LoadBertEncoder(config, loader, prefix, layer));
  }
  DDPO_RETURN_IF_ERROR(loader.CheckAllTaken());
  return encoder;
}

}  // namespace ddpo
