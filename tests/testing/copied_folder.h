#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "common/base/files.h"
#include "common/tensors/safetensors.h"
#include "tests/testing/temp_dir.h"

namespace ddpo::testing {

// A copy of a model's folder, to be changed or damaged by one test.
class CopiedFolder {
 public:
  explicit CopiedFolder(const std::string& from) {
    std::filesystem::copy(from, dir_.path(), std::filesystem::copy_options::recursive);
  }

  const std::string& path() const { return dir_.path(); }
  std::string operator/(const std::string& name) const { return dir_ / name; }

  void Write(const std::string& file, const std::string& text) const {
    ASSERT_TRUE(WriteFileAtomically(dir_ / file, text).ok());
  }

  // Calls change(json) on what a JSON file holds.
  template <typename Change>
  void ChangeJson(const std::string& file, Change change) const {
    nlohmann::json json = nlohmann::json::parse(ReadFile(dir_ / file).value());
    change(json);
    Write(file, json.dump());
  }

  void SetJson(const std::string& file, const std::string& key, const nlohmann::json& value) const {
    ChangeJson(file, [&](nlohmann::json& json) { json[key] = value; });
  }

  // Calls change(tensors) on what a safetensors file holds.
  template <typename Change>
  void ChangeTensors(const std::string& file, Change change) const {
    NamedTensors tensors = ReadSafetensors(dir_ / file).value().tensors;
    change(tensors);
    ASSERT_TRUE(WriteSafetensors(dir_ / file, tensors).ok());
  }

  // Splits a safetensors file into two shards by the index that diffusers and transformers read:
  // every other tensor goes to the second.
  void Shard(const std::string& file) const {
    const std::string stem = file.substr(0, file.rfind(".safetensors"));
    const std::string names[] = {stem + "-00001-of-00002.safetensors",
                                 stem + "-00002-of-00002.safetensors"};
    const NamedTensors tensors = ReadSafetensors(dir_ / file).value().tensors;
    NamedTensors shards[2];
    nlohmann::json index = {{"metadata", {{"total_size", 0}}}};
    size_t next = 0;
    for (const auto& [key, tensor] : tensors) {
      shards[next][key] = tensor;
      index["weight_map"][key] = names[next];
      next = 1 - next;
    }
    for (size_t i : {0, 1}) ASSERT_TRUE(WriteSafetensors(dir_ / names[i], shards[i]).ok());
    Write(file + ".index.json", index.dump());
    std::filesystem::remove(dir_ / file);
  }

 private:
  TempDir dir_;
};

// A value in a network's config.json that it must refuse.
struct BadKey {
  std::string key;
  nlohmann::json value;
  std::string expected;  // what the message says besides file, key and value
};

inline void PrintTo(const BadKey& bad, std::ostream* os) { *os << bad.key << ": " << bad.value; }

// A message that names the file, the key and its value, and what was expected.
inline ::testing::Matcher<std::string> Refuses(const CopiedFolder& dir, const BadKey& bad) {
  return ::testing::AllOf(
      ::testing::HasSubstr(dir / ("config.json: " + bad.key + " is " + bad.value.dump())),
      ::testing::HasSubstr(bad.expected));
}

}  // namespace ddpo::testing
