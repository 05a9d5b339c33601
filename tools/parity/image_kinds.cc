#include <cstdint>
#include <cstring>
#include <vector>

#include "common/base/status_macros.h"
#include "common/tensors/jpeg.h"
#include "tools/parity/kinds.h"

namespace ddpo {
std::vector<Image> ToImages(const at::Tensor& images) {
  std::vector<Image> result(images.size(0));
  for (int64_t i = 0; i < images.size(0); ++i) {
    const at::Tensor pixels = images[i].contiguous();
    result[i].height = static_cast<int>(pixels.size(0));
    result[i].width = static_cast<int>(pixels.size(1));
    result[i].rgb.resize(pixels.numel());
    std::memcpy(result[i].rgb.data(), pixels.const_data_ptr<uint8_t>(), result[i].rgb.size());
  }
  return result;
}

namespace {

absl::StatusOr<NamedTensors> JpegSize(const Fixture& fixture, ParityModel&) {
  DDPO_ASSIGN_OR_RETURN(int64_t quality, fixture.Integer("quality"));
  DDPO_ASSIGN_OR_RETURN(at::Tensor images, fixture.Images("images"));
  std::vector<int64_t> sizes;
  for (const Image& image : ToImages(images)) {
    DDPO_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, EncodeJpeg(image, static_cast<int>(quality)));
    sizes.push_back(static_cast<int64_t>(bytes.size()));
  }
  return NamedTensors{{"bytes", at::tensor(sizes, at::kLong)}};
}

}  // namespace

void AddImageKinds(ParityKinds& kinds) { kinds["jpeg_size"] = JpegSize; }

}  // namespace ddpo
