#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ddpo {

// A queue that serves its callers in turn, one element each, so that a caller with a thousand
// elements delays one with a single element by one place, not by a thousand. Not synchronised.
template <typename T>
class FairQueue {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

  void Push(const std::string& caller, T element) {
    auto [it, is_new] = by_caller_.try_emplace(caller);
    if (is_new) turns_.push_back(caller);
    it->second.push_back(std::move(element));
    ++size_;
  }

  // The next caller's oldest element. The queue must not be empty.
  T Pop() {
    std::string caller = std::move(turns_.front());
    turns_.pop_front();
    auto it = by_caller_.find(caller);
    T element = std::move(it->second.front());
    it->second.pop_front();
    --size_;
    if (it->second.empty()) {
      by_caller_.erase(it);
    } else {
      turns_.push_back(std::move(caller));
    }
    return element;
  }

  // Takes out the elements for which `predicate(element)` holds. The others keep their order.
  template <typename Predicate>
  std::vector<T> Extract(Predicate predicate) {
    std::vector<T> extracted;
    std::deque<std::string> turns;
    for (std::string& caller : turns_) {
      auto it = by_caller_.find(caller);
      std::deque<T> kept;
      for (T& element : it->second) {
        if (predicate(element)) {
          extracted.push_back(std::move(element));
        } else {
          kept.push_back(std::move(element));
        }
      }
      if (kept.empty()) {
        by_caller_.erase(it);
      } else {
        it->second = std::move(kept);
        turns.push_back(std::move(caller));
      }
    }
    turns_ = std::move(turns);
    size_ -= extracted.size();
    return extracted;
  }

 private:
  std::unordered_map<std::string, std::deque<T>> by_caller_;
  std::deque<std::string> turns_;  // callers with elements, the next one first
  size_t size_ = 0;
};

}  // namespace ddpo
