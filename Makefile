# realtime: build, install and try the extension. `make` leaves modules/realtime.so, as phpize does.
#
# PHP=php8.3 builds for, and runs, another PHP than the first `php` of the PATH.

PHP ?= php
DESTDIR ?=
CARGO ?= cargo
# SETUP=true installs nothing.
SETUP ?= tests/setup.sh build
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
MODULE = modules/realtime.so

# Run by the shell and not by make, which expands a whole recipe before its first line has set PHP up.
PHP_BIN = "$$(command -v $(PHP))"
PHP_CONFIG_BIN = "$$(tests/setup.sh php-config)"
SOURCES = $(shell find build.rs Cargo.toml Cargo.lock src php/client php/realtime.stub.php -type f 2>/dev/null)

export PHP

.PHONY: all install demo bench soak clean test test-rust test-phpt test-readme test-library test-browser test-protocols test-autobahn test-servers \
	test-faults test-hostile test-soak test-bench test-loom test-miri test-fuzz test-valgrind valgrind miri FORCE
.NOTPARALLEL:

all: $(MODULE)
	@echo "Built $(CURDIR)/$(MODULE) for PHP $$(cat build/php-version)."
	@echo "Next: make demo, make test or make install."

# The set-up is part of this recipe and not a target of its own, so that `sudo make install` after `make`
# needs no cargo.
$(MODULE): $(SOURCES) build/php-version
	$(SETUP)
	@$(MAKE) --no-print-directory build/php-version
	PHP=$(PHP_BIN) PHP_CONFIG=$(PHP_CONFIG_BIN) $(CARGO) build --locked --release --lib --features php
	@mkdir -p modules
	@# A new file and not new bytes in the old one, which a running PHP may have mapped.
	install -m 644 $(TARGET_DIR)/release/librealtime.so $(MODULE)

# Changes only when PHP does: then the extension has to be built anew.
build/php-version: FORCE
	@mkdir -p build
	@{ $(PHP) -n -r 'echo PHP_VERSION, PHP_ZTS ? " ZTS" : " NTS", PHP_DEBUG ? " debug" : "";' || echo none; } >$@.new 2>/dev/null
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

install: $(MODULE)
	@config=$(PHP_CONFIG_BIN) && dir="$$("$$config" --extension-dir)" && \
	install -d "$(DESTDIR)$$dir" && \
	install -m 644 $(MODULE) "$(DESTDIR)$$dir/realtime.so" && \
	echo "Installed $(DESTDIR)$$dir/realtime.so. To load it, add this line to php.ini:" && \
	echo && echo "    extension=realtime.so" && echo && \
	$(PHP) -r 'echo "php.ini of this PHP: ", php_ini_loaded_file() ?: "none yet, it would be in " . PHP_CONFIG_FILE_PATH, "\n";'

# PHP_ARGS: more for PHP, such as PHP_ARGS="-d realtime.listen=127.0.0.1:9000".
demo: $(MODULE)
	@exec $(PHP) -n -d extension=$(CURDIR)/$(MODULE) -d realtime.docroot=$(CURDIR)/php/demo/public $(PHP_ARGS) php/demo/demo.php

# Every stage, then one summary; tests/run.sh says which stages there are.
test:
	@tests/run.sh

test-rust:
	@tests/run.sh format lint licences cargo-test

test-phpt test-readme test-library test-browser test-protocols test-autobahn test-servers test-faults test-hostile test-soak test-bench test-loom \
test-miri test-fuzz test-valgrind:
	@tests/run.sh $(@:test-%=%)

# PHPTs with memcheck.
valgrind: test-valgrind

# The code of the decoders, too, in an interpreter that sees undefined behaviour: many minutes. `make test` has what is unsafe in the
# ring of realtime.history = disk. What calls C (TLS, signatures) is beyond it.
miri:
	tests/setup.sh miri
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --locked --lib -- wire:: ids:: history:: outbox:: store::ring

bench: $(MODULE)
	$(CARGO) bench --locked --bench fanout -- --extension $(CURDIR)/$(MODULE) --php $(PHP_BIN)

# 5,000 clients that come, go, stall and misbehave for ten minutes; `make test` has a minute of it.
soak:
	@SOAK_CLIENTS=5000 SOAK_SECONDS=600 tests/run.sh soak

clean:
	rm -rf build modules
	$(CARGO) clean
	@# What a failed PHPT left.
	-git clean -fdXq tests/phpt 2>/dev/null
