#!/bin/sh
# Prints the path of a Chromium: $PBA_TEST_CHROMIUM, one in PATH, or Debian's, which is installed where that can be done.
# Where there is none, says so and ends with 1.
for name in "${PBA_TEST_CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome; do
    if [ -n "$name" ] && found=$(command -v "$name"); then
        echo "$found"
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-cache show chromium > /dev/null 2>&1; then
    apt-get install -y -qq --no-install-recommends chromium > /dev/null 2>&1 && command -v chromium && exit 0
fi
echo "no Chromium here, and it cannot be installed: install one, or name it in PBA_TEST_CHROMIUM" >&2
exit 1
