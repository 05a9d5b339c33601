// The PNG decoder.

#include "tests/fuzz/image_checks.h"
#include "tests/fuzz/png_chunks.h"

namespace ddpo::fuzz {
namespace {

class PngTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override { return GoldenPngs(); }
  std::string Mutate(const std::string& input, Random& random) override {
    std::string png = MutateBytes(input, random);
    if (!random.OneIn(4)) FixPngChecksums(&png);
    return png;
  }
  bool Run(const std::string& input) override { return CheckDecoding(input); }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<PngTarget>(); }

}  // namespace ddpo::fuzz
