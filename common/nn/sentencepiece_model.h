#pragma once

#include <memory>
#include <string>
#include <vector>

namespace ddpo {

// The SentencePiece library behind standard types alone: its header declares an absl::string_view
// of its own, which must not meet Abseil's.
class SentencePieceModel {
 public:
  // From the bytes of a tokenizer.model. Null, and what is wrong in `error`, for a damaged one.
  // Without `add_dummy_prefix` text is not given a space before its first word.
  static std::unique_ptr<SentencePieceModel> Parse(const std::string& bytes, bool add_dummy_prefix,
                                                   std::string* error);
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
