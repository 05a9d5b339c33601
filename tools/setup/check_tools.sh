# Sourced by tools/test: what checks deploy/ and nothing else, in the user's cache folder and not in
# the system: Debian's package of Prometheus would start a server. What can't be had is said, and the
# tests that need it skip.

ddpo_kubernetes_validate=kubernetes-validate==1.34.1

# Unpacks one program of a package into a folder. Arguments: package, oldest version that is of use,
# program, folder.
ddpo_fetch_program() {
  local package=$1 oldest=$2 program=$3 folder=$4 work candidate
  [ ! -x "$folder/$program" ] || return 0
  candidate=$(apt-cache policy "$package" | awk '/Candidate:/ {print $2}')
  if ! dpkg --compare-versions "${candidate/(none)/}" ge "$oldest"; then
    echo "== No $program: the package $package is ${candidate:-not there}, $oldest is needed"
    return 0
  fi
  work=$(mktemp -d)
  if (cd "$work" && apt-get download -qq "$package" && dpkg-deb -x ./*.deb root &&
    mkdir -p "$folder" && mv "root/usr/bin/$program" "$folder/$program") >"$work/log" 2>&1; then
    echo "== Fetched $program of the package $package"
  else
    echo "== No $program: the package $package could not be fetched: $(tail -1 "$work/log")"
  fi
  rm -rf "$work"
}

# Puts promtool, kubectl and a Python package in reach of the tests.
ddpo_install_check_tools() {
  local root=${XDG_CACHE_HOME:-$HOME/.cache}/ddpo/check python log
  command -v promtool >/dev/null || ddpo_fetch_program prometheus 2.31 promtool "$root/bin"
  command -v kubectl >/dev/null || ddpo_fetch_program kubernetes-client 1.21 kubectl "$root/bin"
  export PATH=$PATH:$root/bin
  python=$root/$ddpo_kubernetes_validate-python$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if [ ! -f "$python/.complete" ]; then
    log=$(mktemp)
    if python3 -m pip install --quiet --disable-pip-version-check --target "$python" --upgrade \
      "$ddpo_kubernetes_validate" >"$log" 2>&1; then
      touch "$python/.complete"
      echo "== Fetched $ddpo_kubernetes_validate"
    else
      echo "== No $ddpo_kubernetes_validate: $(tail -1 "$log")"
    fi
    rm -f "$log"
  fi
  export PYTHONPATH=$python${PYTHONPATH:+:$PYTHONPATH}
}
