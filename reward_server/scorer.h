#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

// What a scorer says about itself; the fields of ddpo.reward.v1.Scorer and how to run it.
struct ScorerInfo {
  // What callers ask for, as in `jpeg_compressibility`.
  std::string name;
  // Family, as in `jpeg_size`.
  std::string kind;
  // What it measures, for people.
  std::string description;
  // SHA-256 over weights and parameters, hexadecimal: equal digests give comparable scores.
  std::string digest;
  // Bounds of the value where they are known.
  std::optional<double> min_score;
  std::optional<double> max_score;
  bool higher_is_better = true;
  // Inputs without a prompt are refused before they reach ScoreBatch.
  bool needs_prompt = false;
  // Most inputs of one ScoreBatch.
  int max_batch_size = 64;
  // False: an input costs the same alone as among others, so workers take inputs one by one and
  // never wait for a batch to fill.
  bool gains_from_batching = true;
  // ScoreBatch may be called from several threads at once.
  bool thread_safe = false;
};

struct ScoringInput {
  Image image;
  std::string prompt;
  std::map<std::string, std::string> metadata;
};

struct ScoreValue {
  double value = 0;
  // The value's parts, as in `bytes` or `recall`.
  std::map<std::string, double> details;
  // What the scorer has to say, as a judge's reply.
  std::string text;
};

// Turns images into rewards. What cannot be scored is a status, never a number.
class Scorer {
 public:
  virtual ~Scorer() = default;

  virtual const ScorerInfo& info() const = 0;

  // One outcome for each of 1 … max_batch_size inputs, in their order. Blocks; called from one
  // thread at a time unless info().thread_safe.
  virtual std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) = 0;
};

// The scorers that this program can make, by name.
class ScorerRegistry {
 public:
  using Factory = std::function<absl::StatusOr<std::unique_ptr<Scorer>>()>;

  // A name that is taken is ALREADY_EXISTS.
  absl::Status Register(const std::string& name, Factory factory);

  // Says why a scorer of this name cannot be made: INVALID_ARGUMENT with `reason` instead of
  // NOT_FOUND.
  void Explain(const std::string& name, const std::string& reason) { missing_[name] = reason; }

  // Every scorer, of those registered so far, comes out of `decorate`.
  void Decorate(std::function<std::unique_ptr<Scorer>(std::unique_ptr<Scorer>)> decorate);

  // NOT_FOUND lists the known names; or why there is none of this name, or the factory's own error.
  absl::StatusOr<std::unique_ptr<Scorer>> Make(const std::string& name) const;

  // In alphabetical order.
  std::vector<std::string> Names() const;

 private:
  std::map<std::string, Factory> factories_;
  std::map<std::string, std::string> missing_;
};

}  // namespace ddpo
