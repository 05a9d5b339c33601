#pragma once

#include <array>
#include <string>
#include <unordered_map>

namespace ddpo {

// GPT-2's map from bytes to the characters in which byte-level vocabularies are written: printable
// Latin-1 stands for itself, the rest comes from U+0100 on.
const std::array<std::string, 256>& ByteCharacters();
// The other way.
const std::unordered_map<std::string, unsigned char>& BytesOfCharacters();

// UTF-8 with U+FFFD in place of what is damaged.
std::string ReplaceDamagedUtf8(const std::string& bytes);

}  // namespace ddpo
