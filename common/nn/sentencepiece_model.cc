#include "common/nn/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <utility>

namespace ddpo {
namespace {

// ModelProto.normalizer_spec.add_dummy_prefix = false: bytes of a second occurrence of a message,
// which a reader merges into the first.
constexpr char kNoDummyPrefix[] = {0x1a, 0x02, 0x18, 0x00};

}  // namespace

struct SentencePieceModel::Impl {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SentencePieceModel::~SentencePieceModel() = default;

std::unique_ptr<SentencePieceModel> SentencePieceModel::Parse(const std::string& bytes,
                                                              bool add_dummy_prefix,
                                                              std::string* error) {
  std::string model = bytes;
  if (!add_dummy_prefix) model.append(kNoDummyPrefix, sizeof(kNoDummyPrefix));
  auto impl = std::make_unique<Impl>();
  const auto status = impl->processor.LoadFromSerializedProto(model);
  if (!status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  return std::unique_ptr<SentencePieceModel>(new SentencePieceModel(std::move(impl)));
}

std::vector<std::string> SentencePieceModel::Encode(const std::string& text) const {
  return impl_->processor.EncodeAsPieces(text);
}

std::string SentencePieceModel::Decode(const std::vector<std::string>& pieces) const {
  return impl_->processor.DecodePieces(pieces);
}

int SentencePieceModel::size() const { return impl_->processor.GetPieceSize(); }
int SentencePieceModel::Id(const std::string& piece) const {
  return impl_->processor.PieceToId(piece);
}
int SentencePieceModel::unknown_id() const { return impl_->processor.unk_id(); }
std::string SentencePieceModel::Piece(int id) const { return impl_->processor.IdToPiece(id); }

}  // namespace ddpo
