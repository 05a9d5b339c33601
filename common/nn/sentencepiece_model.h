#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ddpo {

// A vocabulary of byte-pair encoding in SentencePiece's file format, with that library's results.
// (The library itself, as distributions build it, exports symbols of its own copy of Protobuf,
// which must not meet Protobuf's.)
class SentencePieceModel {
 public:
  // The contents of a tokenizer.model. Without `add_dummy_prefix` text is not given a space before
  // its first word. INVALID_ARGUMENT says what is damaged or not supported: other kinds of models
  // and normalizations that change characters.
  static absl::StatusOr<std::unique_ptr<SentencePieceModel>> Parse(const std::string& bytes,
                                                                   bool add_dummy_prefix);
  ~SentencePieceModel();

  std::vector<std::string> Encode(const std::string& text) const;
  std::string Decode(const std::vector<std::string>& pieces) const;
  int size() const;
  // The unknown piece's number for what is not in the vocabulary.
  int Id(const std::string& piece) const;
  int unknown_id() const;
  std::string Piece(int id) const;

 private:
  struct Impl;
  explicit SentencePieceModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ddpo
