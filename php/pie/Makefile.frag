.PHONY: realtime-by-cargo
modules/realtime.so: realtime-by-cargo
	@mkdir -p modules
	install -m 644 $(top_srcdir)/../../modules/realtime.so $@

# SETUP=true: PIE's user installs packages, not we.
realtime-by-cargo:
	$(MAKE) -C $(top_srcdir)/../.. SETUP=true PHP=$(PHP_EXECUTABLE) PHP_CONFIG=$(PHP_CONFIG) all
