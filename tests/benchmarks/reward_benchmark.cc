// JPEG scoring through the reward server against a bare libjpeg-turbo loop over the same images,
// in turns within one run. Both may use the same number of threads for encoding.
//
//   reward_benchmark [--images 256] [--size 512] [--threads 1] [--rounds 5] [--call 4]

#include <grpcpp/grpcpp.h>
#include <jpeglib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/tensors/image.h"
#include "ddpo/reward/v1/reward.grpc.pb.h"
#include "reward_server/scorer.h"
#include "reward_server/scorers/builtin.h"
#include "reward_server/server.h"

namespace ddpo {
namespace {

struct Flags {
  int images = 256;
  int size = 512;
  int threads = 1;
  int rounds = 5;
  int call = 4;  // images in one call
};

// Soft gradients with some texture, about as compressible as a photograph.
Image Picture(int size, int index) {
  Image image{size, size, {}};
  image.rgb.reserve(static_cast<size_t>(size) * size * 3);
  uint32_t noise = 12345u + static_cast<uint32_t>(index);
  for (int y = 0; y < size; ++y) {
    for (int x = 0; x < size; ++x) {
      noise = noise * 1664525u + 1013904223u;
      const double base =
          128 + 80 * std::sin(x * 0.02 + index) * std::cos(y * 0.017) + 12 * std::sin(x * 0.4);
      for (int c = 0; c < 3; ++c) {
        image.rgb.push_back(
            static_cast<uint8_t>(std::clamp(base + 15 * c + (noise >> 28) - 8.0, 0.0, 255.0)));
      }
    }
  }
  return image;
}

// The fewest lines that give Pillow's byte count.
size_t BareEncode(const Image& image, unsigned char** buffer, unsigned long* capacity) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned long bytes = *capacity;
  jpeg_mem_dest(&info, buffer, &bytes);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    auto* row =
        const_cast<JSAMPLE*>(image.rgb.data() + size_t{info.next_scanline} * info.image_width * 3);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  *capacity = std::max(*capacity, bytes);
  return bytes;
}

// Images a second over all threads; sizes[i] is the size of image i.
double RunBare(const std::vector<Image>& images, int threads, std::vector<size_t>* sizes) {
  std::atomic<size_t> next{0};
  const absl::Time start = absl::Now();
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      unsigned long capacity = 0;
      unsigned char* buffer = nullptr;
      for (size_t index = next++; index < images.size(); index = next++) {
        (*sizes)[index] = BareEncode(images[index], &buffer, &capacity);
      }
      free(buffer);
    });
  }
  for (std::thread& worker : workers) worker.join();
  return static_cast<double>(images.size()) / absl::ToDoubleSeconds(absl::Now() - start);
}

// Into `request`, whose memory is used again.
void FillRequest(const std::vector<Image>& images, size_t begin, size_t end,
                 reward::v1::ScoreRequest* request) {
  request->Clear();
  request->set_scorer("jpeg_incompressibility");
  for (size_t i = begin; i < std::min(end, images.size()); ++i) {
    reward::v1::ScoreItem* item = request->add_items();
    item->set_item_id(absl::StrCat(i));
    reward::v1::RawImage* raw = item->mutable_image()->mutable_raw();
    raw->set_width(static_cast<uint32_t>(images[i].width));
    raw->set_height(static_cast<uint32_t>(images[i].height));
    raw->set_rgb(images[i].rgb.data(), images[i].rgb.size());
  }
}

using Clients = std::vector<std::unique_ptr<reward::v1::RewardService::Stub>>;

// The same through the server, a thread for each client.
double RunServed(const Clients& clients, const std::vector<Image>& images, const Flags& flags,
                 const std::vector<size_t>& sizes) {
  const auto call = static_cast<size_t>(flags.call);
  std::atomic<size_t> next{0};
  std::atomic<int> wrong{0};
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  for (const auto& stub : clients) {
    threads.emplace_back([&] {
      reward::v1::ScoreRequest request;
      for (size_t begin = next.fetch_add(call); begin < images.size();
           begin = next.fetch_add(call)) {
        FillRequest(images, begin, begin + call, &request);
        grpc::ClientContext context;
        reward::v1::ScoreResponse response;
        const grpc::Status status = stub->Score(&context, request, &response);
        if (!status.ok() || response.results_size() != request.items_size()) {
          ++wrong;
          continue;
        }
        for (int j = 0; j < response.results_size(); ++j) {
          const double bytes = response.results(j).score().details().at("bytes");
          if (bytes != static_cast<double>(sizes[begin + static_cast<size_t>(j)])) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return wrong > 0 ? -1 : static_cast<double>(images.size()) / seconds;
}

// Processor time of this process so far: server and clients.
double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  KeepFreedImageBuffers();
  CLI::App app("JPEG scoring through gRPC against a bare libjpeg-turbo loop");
  Flags flags;
  app.add_option("--images", flags.images)->check(CLI::PositiveNumber);
  app.add_option("--size", flags.size)->check(CLI::PositiveNumber);
  app.add_option("--threads", flags.threads)->check(CLI::PositiveNumber);
  app.add_option("--rounds", flags.rounds)->check(CLI::PositiveNumber);
  app.add_option("--call", flags.call)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  config::v1::RewardServerProgram config;
  config.set_listen("127.0.0.1:0");
  config.add_scorers("jpeg_incompressibility");
  config.mutable_limits()->set_max_batch_size(64);
  config.mutable_limits()->set_max_queue_items(4096);
  config.mutable_limits()->set_max_queue_bytes(int64_t{1} << 30);
  config.mutable_limits()->set_max_image_pixels(1 << 24);
  config.mutable_limits()->set_max_message_bytes(64 << 20);
  config.mutable_limits()->set_scoring_threads(flags.threads);
  config.mutable_limits()->set_decoding_threads(1);
  auto server = RewardServer::Start(config, *BuiltinScorers({}));
  if (!server.ok()) {
    fprintf(stderr, "%s\n", server.status().ToString().c_str());
    return 1;
  }

  // One more than encode: one sends while others wait for their scores.
  Clients clients;
  for (int i = 0; i < flags.threads + 1; ++i) {
    clients.push_back(reward::v1::RewardService::NewStub(*CreateChannel((*server)->address())));
  }
  std::vector<Image> images;
  for (int i = 0; i < flags.images; ++i) images.push_back(Picture(flags.size, i));
  std::vector<size_t> sizes(images.size());
  std::vector<double> bare;
  std::vector<double> served;
  std::vector<double> cpu_ratios;
  // The first round warms both up.
  for (int round = 0; round <= flags.rounds; ++round) {
    const double start = CpuSeconds();
    bare.push_back(RunBare(images, flags.threads, &sizes));
    const double middle = CpuSeconds();
    served.push_back(RunServed(clients, images, flags, sizes));
    if (served.back() < 0) {
      fprintf(stderr, "a score differs from the bare loop's\n");
      return 1;
    }
    cpu_ratios.push_back((middle - start) / (CpuSeconds() - middle));
  }
  cpu_ratios.erase(cpu_ratios.begin());
  bare.erase(bare.begin());
  served.erase(served.begin());
  printf("%d images of %d x %d, %d encoding thread(s), median of %d rounds\n", flags.images,
         flags.size, flags.size, flags.threads, flags.rounds);
  printf("bare libjpeg-turbo loop  %8.1f images/s\n", Median(bare));
  printf("reward server over gRPC  %8.1f images/s\n", Median(served));
  printf("ratio                    %8.3f\n", Median(served) / Median(bare));
  printf("ratio of processor time  %8.3f (server and clients)\n", Median(cpu_ratios));
  return 0;
}

}  // namespace
}  // namespace ddpo

int main(int argc, char** argv) { return ddpo::Main(argc, argv); }
