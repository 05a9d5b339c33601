#include "common/nn/byte_characters.h"

#include <unicode/unistr.h>

namespace ddpo {

const std::array<std::string, 256>& ByteCharacters() {
  static const auto& characters = *[] {
    auto* table = new std::array<std::string, 256>();
    UChar32 next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                             (byte >= 0xae && byte <= 0xff);
      icu::UnicodeString(printable ? UChar32{byte} : next++)
          .toUTF8String((*table)[static_cast<size_t>(byte)]);
    }
    return table;
  }();
  return characters;
}

const std::unordered_map<std::string, unsigned char>& BytesOfCharacters() {
  static const auto& bytes = *[] {
    auto* table = new std::unordered_map<std::string, unsigned char>();
    for (size_t byte = 0; byte < 256; ++byte) {
      (*table)[ByteCharacters()[byte]] = static_cast<unsigned char>(byte);
    }
    return table;
  }();
  return bytes;
}

std::string ReplaceDamagedUtf8(const std::string& bytes) {
  std::string text;
  icu::UnicodeString::fromUTF8(bytes).toUTF8String(text);
  return text;
}

}  // namespace ddpo
