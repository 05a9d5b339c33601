#pragma once

#include <prometheus/family.h>
#include <prometheus/labels.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace ddpo {

// One metric for each value of one label, all of them there from the start, so that a rate over the
// first event is right. A value that is not in the list counts under `other`: no caller can make
// the number of series grow. Thread-safe.
template <typename Metric>
class LabelSet {
 public:
  // `labels` are further labels that all of them carry; `arguments` make a metric, as in a
  // histogram's buckets.
  template <typename... Arguments>
  LabelSet(prometheus::Family<Metric>& family, const std::string& label,
           std::vector<std::string> values, prometheus::Labels labels = {},
           const Arguments&... arguments) {
    values.push_back("other");
    for (const std::string& value : values) {
      labels[label] = value;
      metrics_.emplace(value, family.Add(labels, arguments...));
    }
  }

  Metric& operator[](absl::string_view value) const {
    auto metric = metrics_.find(value);
    if (metric == metrics_.end()) metric = metrics_.find("other");
    return metric->second.get();
  }

 private:
  std::map<std::string, std::reference_wrapper<Metric>, std::less<>> metrics_;
};

}  // namespace ddpo
