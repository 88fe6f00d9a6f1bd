//! Builds the C part of the PHP binding, and only that; without the feature `php` there is nothing to do.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PHP").is_none() {
        return;
    }
    let sources = ["src/php/shim.c", "src/php/objects.c"];
    for source in sources {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=PHP_CONFIG");
    // The same php-config that a user would give to phpize; a name without a path is looked up in PATH.
    let php_config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config".into());
    let output = std::process::Command::new(&php_config)
        .arg("--includes")
        .output()
        .unwrap_or_else(|error| panic!("{php_config} (of php-dev) cannot be run: {error}"));
    let flags = String::from_utf8(output.stdout).expect("php-config prints UTF-8");
    let mut shim = cc::Build::new();
    for path in flags
        .split_whitespace()
        .filter_map(|flag| flag.strip_prefix("-I"))
    {
        // As system headers: PHP's own are not written for our warnings.
        shim.flag("-isystem").flag(path);
    }
    shim.files(sources)
        .warnings(true)
        .std("gnu11")
        .compile("realtime_shim");
    // PHP unloads extensions at its end, while a thread may still stand in this code.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
