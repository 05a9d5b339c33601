#pragma once

#include <cstdint>
#include <string>

namespace ddpo::fuzz {

inline uint32_t ReadBigEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

inline void WriteBigEndian(uint32_t value, size_t at, std::string* bytes) {
  for (size_t i = 0; i < 4; ++i) (*bytes)[at + i] = static_cast<char>(value >> (24 - 8 * i));
}

// Makes the checksum of each chunk fit, as far as chunks can be told: damage behind a checksum that
// does not fit would never be looked at.
inline void FixPngChecksums(std::string* png) {
  constexpr size_t kSignature = 8;
  constexpr size_t kAround = 12;  // length, type and checksum
  for (size_t at = kSignature; at + kAround <= png->size();) {
    const size_t length = ReadBigEndian(*png, at);
    if (length > png->size() - at - kAround) return;
    uint32_t crc = 0xffffffff;
    for (size_t i = at + 4; i < at + 8 + length; ++i) {
      crc ^= static_cast<uint8_t>((*png)[i]);
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
    }
    WriteBigEndian(~crc, at + 8 + length, png);
    at += kAround + length;
  }
}

}  // namespace ddpo::fuzz
