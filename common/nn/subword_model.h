#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ddpo {

// How a family of encoders cuts text into the tokens of its vocabulary; SentenceTokenizer does what
// is around it.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;

  // What is done with the text before special tokens are looked for in it.
  virtual std::string Fold(const std::string& text) const { return text; }

  // Appends the tokens of a text in which there are no special tokens.
  virtual void Append(const std::string& text, std::vector<int64_t>* ids) const = 0;

  virtual std::optional<int64_t> TokenId(const std::string& token) const = 0;
  // Token ids are below it.
  virtual int64_t vocabulary() const = 0;
};

}  // namespace ddpo
