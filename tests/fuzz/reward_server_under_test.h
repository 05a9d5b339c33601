#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/tensors/jpeg.h"
#include "ddpo/reward/v1/jobs.pb.h"
#include "reward_server/scorers/builtin.h"
#include "reward_server/scoring_item.h"
#include "reward_server/server.h"
#include "tests/fuzz/image_checks.h"
#include "tests/fuzz/raw_call.h"

namespace ddpo::fuzz {

inline constexpr char kScorer[] = "jpeg_incompressibility";

// A reward server with its jobs in memory, and what must hold of its answers.
class RewardServerUnderTest {
 public:
  RewardServerUnderTest() {
    config::v1::RewardServerProgram config;
    config.set_listen("127.0.0.1:0");
    config.add_scorers(kScorer);
    auto* limits = config.mutable_limits();
    limits->set_max_batch_size(8);
    limits->set_max_batch_delay_ms(0);
    limits->set_max_queue_items(64);
    limits->set_max_queue_bytes(1 << 22);
    limits->set_max_image_pixels(kMaxPixels);
    limits->set_max_message_bytes(1 << 20);
    limits->set_scoring_threads(1);
    limits->set_decoding_threads(1);
    config.mutable_jobs()->set_database(":memory:");
    config.mutable_jobs()->set_workers(1);
    config.mutable_jobs()->set_max_age_hours(1);
    config.mutable_jobs()->set_max_jobs(1000);
    config.mutable_jobs()->set_max_bytes(1 << 26);
    auto server = RewardServer::Start(config, BuiltinScorers({}).value());
    Require(server.ok(), server.status().ToString());
    server_ = *std::move(server);
    channel_ = CreateChannel(server_->address()).value();
  }

  // A method's name without its package, as in `RewardJobs/GetJob`.
  RawAnswer Call(const std::string& method, const std::vector<std::string>& messages) {
    return CallRaw(channel_, absl::StrCat("/ddpo.reward.v1.", method), messages);
  }

 private:
  std::unique_ptr<RewardServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Every outcome is one that the API names; a fault of the server's own is none.
inline void CheckStatus(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return;
    default:
      Require(false, absl::StrCat("status ", status.error_code(), ": ", status.error_message()));
  }
}

// A score is that of the image that came with the item, and a bad image has an error.
inline void CheckResult(const reward::v1::ScoreItem& item, const reward::v1::ScoreResult& result) {
  Require(result.item_id() == item.item_id(), "a result for another item");
  ScorerInfo info;
  info.name = kScorer;
  const auto input = ToScoringInput(item, info, kMaxPixels);
  const auto jpeg = input.ok() ? EncodeJpeg(input->image, 95) : input.status();
  Require(result.has_score() == jpeg.ok(), result.ShortDebugString());
  if (jpeg.ok()) {
    Require(result.score().value() == static_cast<double>(jpeg->size()) / 1000,
            "the score of another image");
  } else {
    Require(!result.error().reason().empty() && !result.error().message().empty() &&
                result.error().code() != 0,
            "an error that says nothing");
  }
}

inline reward::v1::ScoreItem RawItem(const std::string& id, int width, int height) {
  reward::v1::ScoreItem item;
  item.set_item_id(id);
  item.mutable_image()->mutable_raw()->set_width(static_cast<uint32_t>(width));
  item.mutable_image()->mutable_raw()->set_height(static_cast<uint32_t>(height));
  for (int i = 0; i < width * height * 3; ++i) {
    item.mutable_image()->mutable_raw()->mutable_rgb()->push_back(static_cast<char>(i * 37));
  }
  return item;
}

// A raw image, two encoded ones, a prompt and metadata.
inline std::vector<reward::v1::ScoreItem> GoodItems() {
  std::vector<reward::v1::ScoreItem> items = {RawItem("raw", 7, 5)};
  for (const std::string& bytes : GoldenImages({"quality_95.jpg", "palette.png"})) {
    reward::v1::ScoreItem& item = items.emplace_back();
    item.set_item_id(absl::StrCat("encoded ", items.size()));
    item.mutable_image()->set_encoded(bytes);
  }
  items.back().set_prompt("a cat");
  (*items.back().mutable_metadata())["kind"] = "test";
  return items;
}

}  // namespace ddpo::fuzz
