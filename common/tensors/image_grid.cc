#include "common/tensors/image_grid.h"

#include <algorithm>
#include <cstddef>

namespace ddpo {

Image MakeImageGrid(absl::Span<const Image> images, const GridOptions& options) {
  if (images.empty()) return {};
  const int columns = std::min<int>(options.columns, static_cast<int>(images.size()));
  const int rows = (static_cast<int>(images.size()) + columns - 1) / columns;
  const int scale = options.magnification;
  const int cell_width = images[0].width * scale + options.padding;
  const int cell_height = images[0].height * scale + options.padding;
  Image grid{columns * cell_width + options.padding, rows * cell_height + options.padding, {}};
  grid.rgb.assign(static_cast<size_t>(grid.width) * grid.height * 3, options.background);
  for (size_t i = 0; i < images.size(); ++i) {
    const int left = static_cast<int>(i) % columns * cell_width + options.padding;
    const int top = static_cast<int>(i) / columns * cell_height + options.padding;
    for (int y = 0; y < images[i].height * scale; ++y) {
      for (int x = 0; x < images[i].width * scale; ++x) {
        const size_t from =
            (static_cast<size_t>(y / scale) * images[i].width + static_cast<size_t>(x / scale)) * 3;
        const size_t to = (static_cast<size_t>(top + y) * grid.width + left + x) * 3;
        std::copy_n(images[i].rgb.begin() + static_cast<ptrdiff_t>(from), 3,
                    grid.rgb.begin() + static_cast<ptrdiff_t>(to));
      }
    }
  }
  return grid;
}

}  // namespace ddpo
