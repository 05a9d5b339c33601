// What an image's header says about its size, from 0 × 0 to more than any memory holds.

#include "tests/fuzz/image_checks.h"
#include "tests/fuzz/png_chunks.h"

namespace ddpo::fuzz {
namespace {

class ImageHeaderTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override {
    std::vector<std::string> images = GoldenJpegs();
    for (std::string& png : GoldenPngs()) images.push_back(std::move(png));
    return images;
  }

  std::string Mutate(const std::string& input, Random& random) override {
    std::string image = input;
    if (random.OneIn(4)) image = MutateBytes(image, random);
    if (image.starts_with("\x89PNG")) {
      SetPngSize(random, &image);
    } else {
      SetJpegSize(random, &image);
    }
    return image;
  }

  bool Run(const std::string& input) override { return CheckDecoding(input); }

 private:
  static void SetPngSize(Random& random, std::string* png) {
    constexpr size_t kWidth = 16;
    if (png->size() < kWidth + 8) return;
    for (const size_t side : {kWidth, kWidth + 4}) {
      if (random.OneIn(2)) WriteBigEndian(static_cast<uint32_t>(random.Number()), side, png);
    }
    FixPngChecksums(png);
  }

  // In the frame header: marker FFC0 … FFC2, length, precision, height, width.
  static void SetJpegSize(Random& random, std::string* jpeg) {
    for (size_t at = 2; at + 9 < jpeg->size(); ++at) {
      if ((*jpeg)[at] != '\xff' || (static_cast<uint8_t>((*jpeg)[at + 1]) & 0xfc) != 0xc0) continue;
      for (const size_t side : {at + 5, at + 7}) {
        if (!random.OneIn(2)) continue;
        const uint64_t value = random.Number();
        (*jpeg)[side] = static_cast<char>(value >> 8);
        (*jpeg)[side + 1] = static_cast<char>(value);
      }
      return;
    }
  }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<ImageHeaderTarget>(); }

}  // namespace ddpo::fuzz
