# spotify-auth. `make run` and `make test` are all that a fresh Debian machine needs; `make help` lists the rest.

BUILD ?= build
CC := gcc
PYTHON := /usr/bin/python3
PORT ?= 8080
FUZZ_SECONDS ?= 10
MINUTES ?= 1
export MINUTES

STRICT := -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wconversion -Werror
HARDEN := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
MODE ?= $(HARDEN)
CFLAGS = $(STRICT) $(MODE) -Icgi -MMD -MP
LDFLAGS = $(MODE) -pie -Wl,-z,relro,-z,now
# TLS to Redis, where hiredis has it (1.0 and later): by the headers that store/redis_tls.c looks for.
TLS_LIBS := $(shell $(CC) -E -include hiredis/hiredis_ssl.h -include openssl/ssl.h -xc /dev/null >/dev/null 2>&1 && \
	echo -lhiredis_ssl -lssl -lcrypto)
LDLIBS := -lfcgi -lcurl -ljansson -lhiredis $(TLS_LIBS) -luv -lsodium

SOURCES := $(filter-out cgi/main.c,$(wildcard cgi/*/*.c))
UNITS := $(wildcard tests/unit/test_*.c)
FUZZERS := $(wildcard tests/fuzz/fuzz_*.c)
C_FILES := $(wildcard cgi/*.c cgi/*/*.[ch] tests/unit/*.[ch] tests/fuzz/*.[ch])

OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
UNIT_PROGRAMS := $(UNITS:tests/unit/%.c=$(BUILD)/unit/%)
FUZZ_PROGRAMS := $(FUZZERS:tests/fuzz/%.c=$(BUILD)/fuzz/%)

PACKAGES_BUILD := gcc libc6-dev libfcgi-dev libcurl4-openssl-dev libjansson-dev libhiredis-dev libuv1-dev libsodium-dev
PACKAGES_RUN := redis-server nginx python3 python3-aiohttp python3-requests python3-redis ca-certificates
# Debian's npm goes with Debian's nodejs alone; where there is another npm, its own is there as well.
NPM := $(if $(shell command -v npm),,nodejs npm)
PACKAGES_TEST := clang clang-format clang-tidy libclang-rt-dev llvm cppcheck libcmocka-dev python3-pytest faketime spawn-fcgi \
	openssl curl chromium chromium-driver spin python3-authlib python3-jsonschema python3-yaml $(NPM)
PACKAGES_UNIT := make libcmocka-dev redis-server binutils ca-certificates
PACKAGES_BENCH := wrk libnginx-mod-http-echo
PACKAGES_FAULTS := python3-pytest faketime wrk
PACKAGES_TRIXIE := python3 debootstrap debian-archive-keyring
PACKAGES_DOCKER := $(PACKAGES_TRIXIE) python3-pytest python3-requests python3-yaml openssl $(NPM)
# From Debian 13 on there is Valkey; before, test-redis makes a Debian 13 to have it. Its server's own package would start it.
PACKAGES_REDIS = openssl $(if $(shell . /etc/os-release; [ "$$ID$${VERSION_ID:-99}" \> debian12 ] && echo yes),valkey-tools,$(PACKAGES_TRIXIE))

.PHONY: all help run test test-debian13 test-docker test-redis test-nginx bench test-faults soak unit fuzz lint format clean deps deps-run deps-test deps-bench deps-faults deps-trixie deps-docker deps-unit deps-redis programs fuzz-programs readme

all: deps
	@$(MAKE) --no-print-directory -j2 $(BUILD)/spotify-auth

help:
	@echo "make          build the program: build/spotify-auth (V=1 shows the whole commands)"
	@echo "make run      start everything on http://127.0.0.1:$(PORT) (PORT and every setting from the environment)"
	@echo "make test     build with gcc and clang, lint, run all tests under sanitizers, fuzz each parser for $(FUZZ_SECONDS) s"
	@echo "make test-nginx  run the tests of nginx's configuration with the nginx of other Debians"
	@echo "make test-debian13  make test in a Debian 13 of its own, in build/trixie (root's rights, debootstrap)"
	@echo "make test-redis  the service on real Sentinels, a Cluster, TLS and Valkey, under load; writes build/redis.md (PARTS, SEED)"
	@echo "make test-docker  build the images and log in through them; without a Docker engine by Debian 13's own in build/trixie"
	@echo "make bench    measure, print a table and write build/bench.md"
	@echo "make test-faults  break things on purpose, print what it cost and write build/faults.md (SEED=n repeats a schedule)"
	@echo "make soak     random faults under load for MINUTES (1), the same invariants (SEED=n)"
	@echo "make format   let clang-format lay the C files out"
	@echo "make readme   put the program's settings table into README.md"
	@echo "make clean    remove build and .run"

run: deps-run all
	@$(PYTHON) tests/run.py

test: deps-test
	@$(PYTHON) tests/all.py

test-nginx: deps-test all
	@$(PYTHON) tests/nginx_versions.py

# On a Debian 13 this is make test itself.
test-debian13: deps-trixie
	@$(PYTHON) tests/trixie.py in-tree make test FUZZ_SECONDS=$(FUZZ_SECONDS)

# PARTS: which of the kinds of Redis, such as "sentinel cluster-tls"; all of them without.
test-redis: deps-redis all
	@$(PYTHON) tests/redis/figures.py $(PARTS)

test-docker: deps-docker
	@$(PYTHON) tests/docker/main.py

bench: deps-bench all
	@$(PYTHON) tests/bench/bench.py

test-faults: deps-faults all
	@$(PYTHON) -m pytest -q -p no:cacheprovider --tb=short tests/faults
	@$(PYTHON) tests/faults/figures.py

soak: deps-faults all
	@$(PYTHON) tests/faults/soak.py

# As built; make test runs them under sanitizers as well.
unit: programs
	@for test in $(UNIT_PROGRAMS); do echo "$$test"; $$test 2>&1 || exit 1; done

format:
	clang-format -i $(C_FILES)

readme: all
	@$(PYTHON) tests/lint/readme.py --write

clean:
	rm -rf build .run

# ---- what has to be installed: only asks for root's help when something is missing ----

define install
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	[ -z "$$missing" ] || { \
		command -v apt-get >/dev/null || { echo "missing:" $$missing "(install them by hand, this is no Debian)" >&2; exit 1; }; \
		as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
		[ -z "$$as_root" ] || command -v sudo >/dev/null || \
			{ echo "missing, and there is no sudo: as root, apt-get install --no-install-recommends" $$missing >&2; exit 1; }; \
		echo "installing:" $$missing; \
		said=$$($$as_root apt-get update -qq 2>&1 && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			-o DPkg::Lock::Timeout=120 --no-install-recommends $$missing 2>&1) || \
		{ echo "$$said"; echo "could not install:" $$missing; exit 1; } >&2; }
endef

deps:
	$(call install,$(PACKAGES_BUILD))

deps-run:
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_RUN))

deps-test:
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_RUN) $(PACKAGES_TEST))
	@command -v promtool >/dev/null || $(MAKE) --no-print-directory build/promtool

# promtool alone out of Debian's package, which before Debian 13 is that of Prometheus: to install that would start one.
build/promtool:
	@rm -rf build/prometheus && mkdir -p build/prometheus
	@as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); cd build/prometheus && \
		download() { apt-get download -q promtool || apt-get download -q prometheus; }; \
		said=$$(download 2>&1 || { $$as_root apt-get update -qq && download; } 2>&1) || \
		{ echo "$$said"; echo "could not download: promtool"; exit 1; } >&2
	@dpkg-deb --fsys-tarfile build/prometheus/*.deb | tar -xO ./usr/bin/promtool >$@.new
	@chmod +x $@.new && mv $@.new $@ && rm -r build/prometheus

deps-bench:
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_RUN) $(PACKAGES_BENCH))

deps-faults:
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_RUN) $(PACKAGES_FAULTS))

deps-redis:
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_RUN) $(PACKAGES_REDIS))

deps-unit:
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_UNIT))

deps-docker:
	$(call install,$(PACKAGES_DOCKER))

deps-trixie:
	$(call install,$(PACKAGES_TRIXIE))

# ---- building; tests/all.py calls these with other values of BUILD, CC and MODE ----

# A short line for each file, all of its command with V=1, nothing with make -s.
SHORT := $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),,yes)
Q := $(if $(V),,@)
say = $(if $(SHORT),@echo "$(1)")

programs: $(BUILD)/spotify-auth $(UNIT_PROGRAMS)

fuzz-programs: $(FUZZ_PROGRAMS)

$(BUILD)/spotify-auth: $(BUILD)/cgi/main.o $(BUILD)/libspotify-auth.a
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libspotify-auth.a: $(OBJECTS)
	@rm -f $@
	$(call say,AR $@)
	$(Q)ar rcs $@ $^

$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(BUILD)/libspotify-auth.a
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/libspotify-auth.a
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

.SECONDARY:
-include $(shell find $(BUILD)/cgi $(BUILD)/tests -name '*.d' -type f 2>/dev/null)
