# The entrances. Meson does the work (src/, tests/); everything made lands in build/.
# Each target sets up what it needs itself (Debian 12; packages are installed when missing, as root).
.PHONY: all demo test bench fuzz lint lab clean
all:
	@scripts/setup.sh build
	@scripts/build.sh
demo:
	@scripts/setup.sh demo
	@scripts/build.sh
	@node examples/demo.mjs
test:
	@scripts/setup.sh test
	@scripts/build.sh --tests
	@scripts/test.sh unit e2e attack crash
bench:
	@scripts/setup.sh bench
	@scripts/build.sh
	@bench/run.sh
fuzz:
	@scripts/setup.sh test
	@FUZZ_BUILD=build/fuzz scripts/fuzz.sh
lint:
	@scripts/setup.sh test
	@scripts/lint.sh
lab:
	@scripts/setup.sh test
	@scripts/build.sh --tests
	@scripts/test.sh lab
clean:
	rm -rf build
