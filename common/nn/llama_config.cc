#include "common/nn/llama_config.h"

#include <numbers>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

absl::StatusOr<double> PositiveNumber(const JsonConfig& config, const std::string& key) {
  DDPO_ASSIGN_OR_RETURN(const double value, config.Number(key, 0));
  if (!(value > 0)) return config.Error(key, "a number above 0");
  return value;
}

// transformers' _compute_llama3_parameters: waves that turn often within the length of the first
// training keep their frequency, long ones are stretched by `factor`, those between by a mixture.
absl::StatusOr<at::Tensor> StretchLlama3(const at::Tensor& frequencies, const JsonConfig& scaling) {
  DDPO_ASSIGN_OR_RETURN(const double factor, PositiveNumber(scaling, "factor"));
  DDPO_ASSIGN_OR_RETURN(const double low, PositiveNumber(scaling, "low_freq_factor"));
  DDPO_ASSIGN_OR_RETURN(const double high, PositiveNumber(scaling, "high_freq_factor"));
  DDPO_ASSIGN_OR_RETURN(const double length,
                        PositiveNumber(scaling, "original_max_position_embeddings"));
  if (high <= low) return scaling.Error("high_freq_factor", "a number above low_freq_factor");
  const at::Tensor wavelengths = 2 * std::numbers::pi / frequencies;
  const at::Tensor stretched = frequencies / factor;
  const at::Tensor smooth = (length / wavelengths - low) / (high - low);
  const at::Tensor mixed = (1 - smooth) * stretched + smooth * frequencies;
  return at::where(wavelengths > length / low, stretched,
                   at::where(wavelengths < length / high, frequencies, mixed));
}

absl::StatusOr<at::Tensor> InverseFrequencies(const JsonConfig& config, int64_t head_dim) {
  // Since transformers 5 the base stands among the parameters.
  DDPO_ASSIGN_OR_RETURN(
      const JsonConfig scaling,
      config.Object(config.Has("rope_parameters") ? "rope_parameters" : "rope_scaling"));
  const JsonConfig& theta_source = scaling.Has("rope_theta") ? scaling : config;
  DDPO_ASSIGN_OR_RETURN(const double theta, theta_source.Number("rope_theta", 10000));
  if (!(theta > 0)) return theta_source.Error("rope_theta", "a number above 0");
  const at::Tensor exponents = at::arange(0, head_dim, 2, at::kFloat) / head_dim;
  const at::Tensor frequencies = 1 / at::pow(theta, exponents);

  const char* type_key = scaling.Has("rope_type") ? "rope_type" : "type";
  DDPO_ASSIGN_OR_RETURN(const std::string type, scaling.String(type_key, "default"));
  if (type == "default") return frequencies;
  if (type == "linear") {
    DDPO_ASSIGN_OR_RETURN(const double factor, PositiveNumber(scaling, "factor"));
    return frequencies / factor;
  }
  if (type == "llama3") return StretchLlama3(frequencies, scaling);
  return scaling.Error(type_key, "\"default\", \"linear\" or \"llama3\"");
}

}  // namespace

absl::StatusOr<LlamaConfig> ReadLlamaConfig(const JsonConfig& config) {
  LlamaConfig llama;
  DDPO_RETURN_IF_ERROR(config.Require("model_type", {R"("llama")"}));
  DDPO_RETURN_IF_ERROR(config.Require("hidden_act", {R"("silu")"}));
  DDPO_ASSIGN_OR_RETURN(llama.vocabulary, config.Int("vocab_size", 32000));
  DDPO_ASSIGN_OR_RETURN(llama.hidden, config.Int("hidden_size", 4096));
  DDPO_ASSIGN_OR_RETURN(llama.intermediate, config.Int("intermediate_size", 11008));
  DDPO_ASSIGN_OR_RETURN(llama.layers, config.Int("num_hidden_layers", 32, 1, 1000));
  DDPO_ASSIGN_OR_RETURN(llama.heads, config.Int("num_attention_heads", 32));
  DDPO_ASSIGN_OR_RETURN(llama.key_value_heads, config.Int("num_key_value_heads", llama.heads));
  if (llama.heads % llama.key_value_heads != 0) {
    return config.Error("num_key_value_heads", absl::StrCat("a number that divides ", llama.heads));
  }
  if (!config.Has("head_dim") && llama.hidden % llama.heads != 0) {
    return config.Error("num_attention_heads",
                        absl::StrCat("a number that divides hidden_size (", llama.hidden, ")"));
  }
  DDPO_ASSIGN_OR_RETURN(llama.head_dim, config.Int("head_dim", llama.hidden / llama.heads));
  if (llama.head_dim % 2 != 0) {
    return config.Error("head_dim",
                        absl::StrCat("an even number of features a head, not ", llama.head_dim));
  }
  DDPO_ASSIGN_OR_RETURN(llama.rms_norm_eps, config.Number("rms_norm_eps", 1e-6));
  DDPO_ASSIGN_OR_RETURN(llama.attention_bias, config.Bool("attention_bias", false));
  DDPO_ASSIGN_OR_RETURN(llama.mlp_bias, config.Bool("mlp_bias", false));
  DDPO_ASSIGN_OR_RETURN(llama.tie_word_embeddings, config.Bool("tie_word_embeddings", false));
  DDPO_ASSIGN_OR_RETURN(llama.inverse_frequencies, InverseFrequencies(config, llama.head_dim));
  return llama;
}

}  // namespace ddpo
