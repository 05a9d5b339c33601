// The JPEG decoder.

#include "tests/fuzz/image_checks.h"

namespace ddpo::fuzz {
namespace {

class JpegTarget : public FuzzTarget {
 public:
  std::vector<std::string> Corpus() override { return GoldenJpegs(); }
  bool Run(const std::string& input) override { return CheckDecoding(input); }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<JpegTarget>(); }

}  // namespace ddpo::fuzz
