dnl For PIE, which runs phpize, ./configure, make and make install in this directory. cargo does the building:
dnl this only hands over to the Makefile two directories up.
PHP_ARG_ENABLE([realtime],
  [whether to build realtime],
  [AS_HELP_STRING([--enable-realtime], [Build realtime])],
  [yes])

AC_PATH_PROG([REALTIME_CARGO], [cargo], [no])
if test "$REALTIME_CARGO" = no; then
  AC_MSG_ERROR([cargo is missing: install Rust with rustup (https://rustup.rs)])
fi

dnl What phpize's Makefile builds and installs.
PHP_MODULES="modules/realtime.so"
PHP_SUBST([PHP_CONFIG])
PHP_ADD_BUILD_DIR([modules])
PHP_ADD_MAKEFILE_FRAGMENT([$abs_srcdir/Makefile.frag], [$abs_srcdir], [$abs_builddir])
