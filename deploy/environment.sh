# The service's environment of Python: what the device side imports and no more. install.sh reads this file.

# pip's own resolver would add a client for model downloads and tools for converting models: see device-packages.txt.
put_environment() {
    [ -x "$opt/venv/bin/python" ] || "$python" -m venv "$opt/venv"
    for name in $bridges; do
        case $name in mqtt) needed='paho-mqtt>=2' ;; wyoming) needed='wyoming>=1.10' ;; esac
        set -- "$@" "$needed"
    done
    if [ -d "$package" ]; then copy_sources; fi
    "$opt/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --requirement "$here/device-packages.txt" "$@" "$package"
    for packages in "$opt"/venv/lib/python3.*/site-packages; do leave_out "$packages"; done
}

# A build leaves files beside its sources, here root's in the user's checkout, and takes in what an earlier one left.
copy_sources() {
    rm -rf "$opt/.sources.tmp"
    mkdir "$opt/.sources.tmp"
    for name in pyproject.toml README.md LICENSE edge_far; do cp -RL "$package/$name" "$opt/.sources.tmp/"; done
    package=$opt/.sources.tmp
}

# Tests of NumPy and tools of ONNX Runtime that no program imports, about 26 MB. pip does not mind that they are gone.
leave_out() {
    find "$1/numpy" -type d -name tests -prune -exec rm -rf {} + 2>/dev/null || true
    for name in transformers quantization tools; do rm -rf "$1/onnxruntime/$name"; done
}
