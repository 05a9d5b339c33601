#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

namespace google::protobuf {
class Message;
}

namespace ddpo::fuzz {

// The same numbers on every machine for the same seed.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint64_t Next() { return engine_(); }
  // In [0, bound).
  size_t Below(size_t bound) { return static_cast<size_t>(engine_() % bound); }
  bool OneIn(size_t count) { return Below(count) == 0; }
  // At the edges of what integers hold as often as anywhere.
  uint64_t Number();

 private:
  std::mt19937_64 engine_;
};

// Changes, adds, repeats or takes away some bytes.
std::string MutateBytes(std::string bytes, Random& random);

// Changes one field of the message, however deep it lies: so the result still parses, and what is
// behind the parser gets its share.
void MutateMessage(google::protobuf::Message* message, Random& random);

// One of the two ways, for a serialized message of the type of `prototype`.
std::string MutateSerialized(const google::protobuf::Message& prototype, const std::string& bytes,
                             Random& random);

}  // namespace ddpo::fuzz
