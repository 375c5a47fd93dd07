//! Lets the linker leave the functions of Node open: the process that loads the addon has them.

fn main() {
    napi_build::setup();
    // The macros write the types of what they export where this says.
    println!("cargo:rerun-if-env-changed=NAPI_TYPE_DEF_TMP_FOLDER");
    // What is shipped has no names of its own functions: Node looks for one only.
    let is = |name: &str, value: &str| std::env::var_os(name).is_some_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--strip-all");
    }
}
