#!/usr/bin/env bash
# Gathers what the programs need to run: stripped programs, LibTorch's libraries, and the names of
# the packages that hold the other ones. Called by the Dockerfile.
#
#   collect.sh PROGRAMS_DIR LIBTORCH_LIB_DIR TO
set -euo pipefail
programs=$1 torch=$(readlink -f "$2") to=$3
mkdir -p "$to/bin" "$to/lib"
for program in ddpo ddpo-learner ddpo-actor ddpo-reward-server ddpo-health; do
  strip -o "$to/bin/$program" "$programs/$program"
done
libraries=$(for program in "$to"/bin/*; do LD_LIBRARY_PATH=$torch ldd "$program"; done | sort -u | awk '
  # The library of the driver comes from the machine, with the GPU.
  /=> not found/ && $1 != "libcuda.so.1" {print "no library " $1 > "/dev/stderr"; missing = 1}
  / => \// {print $3}
  END {exit missing}')
declare -A packages=([ca-certificates]=1)
while read -r library; do
  case $(readlink -f "$(dirname "$library")") in
    "$torch") cp -Lu "$library" "$to/lib/" ;;
    *)
      # dpkg knows a file by one of its two names where /lib is a link to /usr/lib.
      owner=$(dpkg-query -S "$(readlink -f "$library")" 2>/dev/null ||
        dpkg-query -S "/lib/${library#*/lib/}")
      packages[${owner%%:*}]=1
      ;;
  esac
done < <(sort -u <<<"$libraries")
# The wheel's symbol tables are a fifth of what remains.
strip --strip-unneeded "$to/lib/libtorch_cpu.so" "$to/lib/libc10.so"
printf '%s\n' "${!packages[@]}" | sort >"$to/packages.txt"
