#include "common/nn/llava.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/nn/chat_template.h"
#include "common/nn/clip_image_processor.h"
#include "common/nn/clip_vision.h"
#include "common/nn/json_config.h"
#include "common/nn/llama.h"
#include "common/nn/llama_tokenizer.h"
#include "common/nn/model_digest.h"
#include "common/nn/network_options.h"
#include "common/nn/weights.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

constexpr char kConfigFile[] = "config.json";
constexpr char kProcessorFile[] = "processor_config.json";
constexpr char kGenerationFile[] = "generation_config.json";

// Where the parts of the model lie among the keys.
struct KeyLayout {
  std::string language, head, vision, projector;
};

absl::StatusOr<KeyLayout> FindKeyLayout(const std::string& dir, const WeightLoader& loader) {
  KeyLayout keys;
  if (loader.ContainsPrefix("language_model.model.")) {  // before transformers 4.52
    keys = {"language_model.model.", "language_model.lm_head.weight", "vision_tower.",
            "multi_modal_projector."};
  } else if (loader.ContainsPrefix("model.language_model.")) {
    keys = {"model.language_model.", "lm_head.weight", "model.vision_tower.",
            "model.multi_modal_projector."};
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(dir,
                     ": the weights have neither language_model.model.… nor "
                     "model.language_model.…, the keys of a LLaVA in transformers' layout"));
  }
  if (loader.ContainsPrefix(keys.vision + "vision_model.")) keys.vision += "vision_model.";
  return keys;
}

// What transformers would change the next token's probabilities by, also in greedy decoding.
absl::Status RequirePlainLogits(const JsonConfig& generation) {
  DDPO_RETURN_IF_ERROR(generation.Require("repetition_penalty", {"1.0"}));
  for (const char* key : {"no_repeat_ngram_size", "min_length", "min_new_tokens"}) {
    DDPO_RETURN_IF_ERROR(generation.Require(key, {"0"}));
  }
  for (const char* key : {"bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
                          "sequence_bias", "forced_bos_token_id", "forced_eos_token_id"}) {
    DDPO_RETURN_IF_ERROR(generation.Require(key, {}));
  }
  return absl::OkStatus();
}

// The first of the files that says which tokens end a reply; 2, LlamaConfig's default, if none
// does.
absl::StatusOr<std::set<int64_t>> ReadEndTokens(const std::string& dir, const JsonConfig& config,
                                                const JsonConfig& text_config) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig generation,
                        JsonConfig::ReadIfThere(JoinPath(dir, kGenerationFile)));
  DDPO_RETURN_IF_ERROR(RequirePlainLogits(generation));
  for (const JsonConfig* source : {&generation, &config, &text_config}) {
    if (!source->Has("eos_token_id")) continue;
    const Json& value = source->json()["eos_token_id"];
    std::set<int64_t> ids;
    for (const Json& id : value.is_array() ? value : Json::array({value})) {
      if (!id.is_number_integer()) return source->Error("eos_token_id", "a token's number or some");
      ids.insert(id.get<int64_t>());
    }
    return ids;
  }
  return std::set<int64_t>{2};
}

absl::StatusOr<std::string> Digest(const std::string& dir, const LlavaOptions& options) {
  std::vector<std::string> files;
  for (const char* name :
       {kConfigFile, kProcessorFile, kGenerationFile, "preprocessor_config.json",
        "chat_template.jinja", "chat_template.json", "tokenizer.json", "tokenizer.model",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    if (FileSystem::Real()->Exists(JoinPath(dir, name))) files.emplace_back(name);
  }
  DDPO_ASSIGN_OR_RETURN(const std::string model, ModelDigest(dir, files));
  return Sha256Hex(absl::StrCat("llava 1 ", model, " ", options.dtype));
}

// A batch of tokens with padding on the left.
struct TokenBatch {
  at::Tensor ids;       // [B,L] int64
  at::Tensor is_token;  // [B,L] bool
};

TokenBatch PadLeft(absl::Span<const std::vector<int64_t>> sequences) {
  size_t longest = 0;
  for (const auto& sequence : sequences) longest = std::max(longest, sequence.size());
  const auto batch = static_cast<int64_t>(sequences.size());
  const auto length = static_cast<int64_t>(longest);
  TokenBatch result = {.ids = at::zeros({batch, length}, at::kLong),
                       .is_token = at::zeros({batch, length}, at::kBool)};
  for (int64_t i = 0; i < batch; ++i) {
    const auto& sequence = sequences[static_cast<size_t>(i)];
    const auto size = static_cast<int64_t>(sequence.size());
    result.ids[i].narrow(0, length - size, size).copy_(at::tensor(sequence, at::kLong));
    result.is_token[i].narrow(0, length - size, size).fill_(true);
  }
  return result;
}

}  // namespace

struct Llava::Impl {
  explicit Impl(const LlavaOptions& llava_options) : options(llava_options) {}

  LlavaOptions options;
  std::string digest;
  std::unique_ptr<LlamaTokenizer> tokenizer;
  std::optional<ChatTemplate> chat;
  std::optional<ClipImageProcessor> processor;
  std::optional<ClipVisionTower> vision;
  std::optional<Llama> language;
  Linear projector1, projector2;
  bool tanh_gelu = false;
  std::vector<int64_t> feature_layers;
  bool keep_class_token = false;  // vision_feature_select_strategy `full`
  std::string image_token;
  int64_t image_token_id = 0;
  std::set<int64_t> end_tokens;

  absl::Status LoadAll(const std::string& dir);
  absl::Status LoadProjector(WeightLoader& loader, const JsonConfig& config,
                             const std::string& prefix);
  absl::Status LoadText(const std::string& dir, const JsonConfig& config);

  int64_t image_tokens() const { return vision->positions() - (keep_class_token ? 0 : 1); }
  absl::StatusOr<std::vector<int64_t>> Tokens(const std::string& question) const;
  // pixels [B,3,S,S] -> [B·image_tokens(),D].
  at::Tensor ImageFeatures(const at::Tensor& pixels) const;
  std::vector<std::vector<int64_t>> Generate(absl::Span<const std::vector<int64_t>> prompts,
                                             const at::Tensor& pixels,
                                             absl::Span<const int> max_new_tokens) const;
  void AnswerPart(absl::Span<const LlavaQuestion> questions,
                  absl::Span<absl::StatusOr<LlavaReply>> replies) const;
};

absl::Status Llava::Impl::LoadProjector(WeightLoader& loader, const JsonConfig& config,
                                        const std::string& prefix) {
  DDPO_ASSIGN_OR_RETURN(const std::string activation,
                        config.String("projector_hidden_act", "gelu"));
  if (activation != "gelu" && activation != "gelu_pytorch_tanh") {
    return config.Error("projector_hidden_act", "\"gelu\" or \"gelu_pytorch_tanh\"");
  }
  tanh_gelu = activation != "gelu";
  DDPO_ASSIGN_OR_RETURN(const bool bias, config.Bool("multimodal_projector_bias", true));
  const int64_t in = vision->hidden() * static_cast<int64_t>(feature_layers.size());
  const int64_t hidden = language->config().hidden;
  DDPO_ASSIGN_OR_RETURN(projector1, Linear::Load(loader, prefix + "linear_1", in, hidden, bias));
  DDPO_ASSIGN_OR_RETURN(projector2,
                        Linear::Load(loader, prefix + "linear_2", hidden, hidden, bias));
  return absl::OkStatus();
}

absl::Status Llava::Impl::LoadText(const std::string& dir, const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(tokenizer, LlamaTokenizer::Load(dir));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig file,
                        JsonConfig::ReadIfThere(JoinPath(dir, kProcessorFile)));
  DDPO_ASSIGN_OR_RETURN(image_token, file.String("image_token", "<image>"));
  const char* key = config.Has("image_token_id") ? "image_token_id" : "image_token_index";
  DDPO_ASSIGN_OR_RETURN(image_token_id,
                        config.Int(key, 32000, 0, language->config().vocabulary - 1));
  if (tokenizer->TokenId(image_token) != image_token_id) {
    return config.Error(key, absl::StrCat("the number of the tokenizer's ", image_token));
  }
  DDPO_ASSIGN_OR_RETURN(chat, ChatTemplate::Load(dir, {.image = image_token,
                                                       .bos = tokenizer->bos_token(),
                                                       .eos = tokenizer->eos_token()}));
  // So that a template that cannot be rendered is known at once.
  return Tokens("What is this?").status();
}

absl::Status Llava::Impl::LoadAll(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const NetworkOptions network,
                        ParseNetworkOptions(options.dtype, options.device));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(JoinPath(dir, kConfigFile)));
  DDPO_RETURN_IF_ERROR(config.Require("model_type", {R"("llava")"}));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig vision_config, config.Object("vision_config"));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig text_config, config.Object("text_config"));
  DDPO_RETURN_IF_ERROR(
      config.Require("vision_feature_select_strategy", {R"("default")", R"("full")"}));
  DDPO_ASSIGN_OR_RETURN(const std::string strategy,
                        config.String("vision_feature_select_strategy", "default"));
  keep_class_token = strategy == "full";

  DDPO_ASSIGN_OR_RETURN(WeightLoader loader, WeightLoader::Open(dir, network));
  DDPO_ASSIGN_OR_RETURN(const KeyLayout keys, FindKeyLayout(dir, loader));
  DDPO_ASSIGN_OR_RETURN(vision, ClipVisionTower::Load(loader, keys.vision, vision_config));
  const Json layer = config.json().value("vision_feature_layer", Json(-2));
  for (const Json& index : layer.is_array() ? layer : Json::array({layer})) {
    const int64_t layers = vision->layers();
    if (!index.is_number_integer() || index < -layers - 1 || index > layers) {
      return config.Error("vision_feature_layer",
                          absl::StrCat("a number in ", -layers - 1, " … ", layers, " or a list"));
    }
    feature_layers.push_back(index.get<int64_t>());
  }
  DDPO_ASSIGN_OR_RETURN(const LlamaConfig llama_config, ReadLlamaConfig(text_config));
  DDPO_ASSIGN_OR_RETURN(language, Llama::Load(loader, llama_config, keys.language, keys.head));
  DDPO_RETURN_IF_ERROR(LoadProjector(loader, config, keys.projector));
  DDPO_RETURN_IF_ERROR(loader.CheckAllTaken());

  DDPO_ASSIGN_OR_RETURN(processor, ClipImageProcessor::Load(dir));
  if (processor->output_width() != vision->image_size() ||
      processor->output_height() != vision->image_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        dir, "/preprocessor_config.json: makes images of ", processor->output_width(), " × ",
        processor->output_height(), " pixels, expected the image tower's ", vision->image_size()));
  }
  DDPO_ASSIGN_OR_RETURN(end_tokens, ReadEndTokens(dir, config, text_config));
  DDPO_RETURN_IF_ERROR(LoadText(dir, config));
  DDPO_ASSIGN_OR_RETURN(digest, Digest(dir, options));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> Llava::Impl::Tokens(const std::string& question) const {
  DDPO_ASSIGN_OR_RETURN(std::string text, chat->Render(question));
  // One token for each of the image's features, before the text is cut into tokens, as transformers
  // does: a tokenizer may treat the text beside a token in its own way.
  std::string repeated;
  for (int64_t i = 0; i < image_tokens(); ++i) repeated += image_token;
  text.replace(text.find(image_token), image_token.size(), repeated);
  const std::string& bos = tokenizer->bos_token();
  const bool begun = !bos.empty() && text.starts_with(bos);
  std::vector<int64_t> ids = tokenizer->Encode(text, /*add_special_tokens=*/!begun);
  const int64_t vocabulary = language->config().vocabulary;
  for (const int64_t id : ids) {
    if (id >= vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tokenizer gives token ", id, "; the language model has ", vocabulary));
    }
  }
  return ids;
}

at::Tensor Llava::Impl::ImageFeatures(const at::Tensor& pixels) const {
  std::vector<at::Tensor> selected;
  for (const int64_t layer : feature_layers) {
    const at::Tensor hidden = vision->HiddenState(pixels, layer);
    selected.push_back(keep_class_token ? hidden : hidden.slice(1, 1));
  }
  const at::Tensor inner = projector1.Forward(at::cat(selected, -1));
  const at::Tensor features =
      projector2.Forward(tanh_gelu ? at::gelu(inner, "tanh") : at::gelu(inner));
  return features.flatten(0, 1);
}

std::vector<std::vector<int64_t>> Llava::Impl::Generate(
    absl::Span<const std::vector<int64_t>> prompts, const at::Tensor& pixels,
    absl::Span<const int> max_new_tokens) const {
  const size_t batch = prompts.size();
  const TokenBatch tokens = PadLeft(prompts);
  const int longest = *std::max_element(max_new_tokens.begin(), max_new_tokens.end());
  LlamaCache cache = {.batch = tokens.ids.size(0), .capacity = tokens.ids.size(1) + longest};
  at::Tensor embeddings = language->Embed(tokens.ids);
  const at::Tensor is_image =
      (tokens.ids == image_token_id).logical_and(tokens.is_token).unsqueeze(2);
  embeddings = embeddings.masked_scatter(is_image.to(embeddings.device()), ImageFeatures(pixels));
  at::Tensor is_token = tokens.is_token;
  std::vector<std::vector<int64_t>> replies(batch);
  std::vector<bool> done(batch, false);
  for (int step = 0; step < longest; ++step) {
    const at::Tensor hidden = language->Forward(embeddings, is_token, &cache);
    const at::Tensor next = language->Logits(hidden.select(1, -1)).argmax(-1).cpu();
    bool all_done = true;
    for (size_t i = 0; i < batch; ++i) {
      if (done[i]) continue;
      const int64_t id = next[static_cast<int64_t>(i)].item<int64_t>();
      replies[i].push_back(id);
      done[i] = end_tokens.contains(id) || static_cast<int>(replies[i].size()) >= max_new_tokens[i];
      all_done = all_done && done[i];
    }
    if (all_done) break;
    embeddings = language->Embed(next.unsqueeze(1));
    is_token = at::ones({tokens.ids.size(0), 1}, at::kBool);
  }
  return replies;
}

void Llava::Impl::AnswerPart(absl::Span<const LlavaQuestion> questions,
                             absl::Span<absl::StatusOr<LlavaReply>> replies) const {
  std::vector<size_t> places;
  std::vector<std::vector<int64_t>> prompts;
  std::vector<at::Tensor> pixels;
  std::vector<int> max_new_tokens;
  for (size_t i = 0; i < questions.size(); ++i) {
    absl::StatusOr<std::vector<int64_t>> ids = Tokens(questions[i].text);
    absl::StatusOr<at::Tensor> image = processor->Process(*questions[i].image);
    if (!ids.ok() || !image.ok()) {
      replies[i] = ids.ok() ? image.status() : ids.status();
    } else if (questions[i].max_new_tokens < 1) {
      replies[i] = absl::InvalidArgumentError(
          absl::StrCat("max_new_tokens is ", questions[i].max_new_tokens, ", expected 1 or more"));
    } else {
      places.push_back(i);
      prompts.push_back(*std::move(ids));
      pixels.push_back(*std::move(image));
      max_new_tokens.push_back(questions[i].max_new_tokens);
    }
  }
  if (places.empty()) return;
  try {
    const at::NoGradGuard no_grad;
    const auto generated = Generate(prompts, at::stack(pixels), max_new_tokens);
    for (size_t i = 0; i < places.size(); ++i) {
      replies[places[i]] =
          LlavaReply{.token_ids = generated[i], .text = tokenizer->Decode(generated[i])};
    }
  } catch (const c10::Error& error) {
    // As when a device is out of memory.
    const absl::Status status =
        absl::InternalError(absl::StrCat("LLaVA: LibTorch: ", error.what_without_backtrace()));
    for (const size_t place : places) replies[place] = status;
  }
}

Llava::Llava(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Llava::~Llava() = default;

absl::StatusOr<std::unique_ptr<Llava>> Llava::Load(const std::string& dir,
                                                   const LlavaOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  try {
    const at::NoGradGuard no_grad;
    DDPO_RETURN_IF_ERROR(impl->LoadAll(dir));
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat(dir, ": LibTorch: ", error.what_without_backtrace()));
  }
  return std::unique_ptr<Llava>(new Llava(std::move(impl)));
}

std::vector<absl::StatusOr<LlavaReply>> Llava::Answer(
    absl::Span<const LlavaQuestion> questions) const {
  std::vector<absl::StatusOr<LlavaReply>> replies(questions.size());
  const auto part = static_cast<size_t>(std::max(1, impl_->options.max_batch_size));
  for (size_t at = 0; at < questions.size(); at += part) {
    impl_->AnswerPart(questions.subspan(at, part), absl::MakeSpan(replies).subspan(at, part));
  }
  return replies;
}

const std::string& Llava::digest() const { return impl_->digest; }
int Llava::max_batch_size() const { return impl_->options.max_batch_size; }

}  // namespace ddpo
