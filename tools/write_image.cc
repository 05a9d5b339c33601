#include "tools/write_image.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/tensors/image_grid.h"
#include "common/tensors/png.h"

namespace ddpo {
namespace {

// Pixels a side from which on an image needs no magnification.
constexpr int kComfortableWidth = 96;

}  // namespace

absl::Status WritePng(const std::string& path, const Image& image) {
  DDPO_ASSIGN_OR_RETURN(std::vector<uint8_t> png, EncodePng(image));
  return WriteFileAtomically(
      path, absl::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
}

absl::Status WriteGrid(const std::string& path, absl::Span<const Image> images, int columns) {
  GridOptions options;
  options.columns = std::min<int>(columns, static_cast<int>(images.size()));
  if (!images.empty()) {
    options.magnification = std::max(1, kComfortableWidth / std::max(1, images[0].width));
  }
  return WritePng(path, MakeImageGrid(images, options));
}

}  // namespace ddpo
