//! The parent's environment as a snapshot, the placeholders that refer to it,
//! and the scrubbed environment that a child gets. Refuses to read the process
//! environment itself (only a binary does) and to show a value in an error.

use std::collections::BTreeMap;

use machina_core::{Error, Result, Sensitive, SensitiveMap};

/// Variables by which the dynamic linker, a language's runtime, a shell, git or a
/// package manager is made to run code of someone's choice: refused unless
/// allowed by name. Compared without regard to case: npm reads both.
const DANGEROUS: &[&str] = &[
    // The linker and the C library.
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    // Shells.
    "BASH_ENV",
    "BASH_FUNC_*",
    "BASHOPTS",
    "ENV",
    "IFS",
    "PROMPT_COMMAND",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR",
    // Runtimes.
    "_JAVA_OPTIONS",
    "BUN_OPTIONS",
    "CLASSPATH",
    "COR_*",
    "CORECLR_*",
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_SHARED_STORE",
    "DOTNET_STARTUP_HOOKS",
    "ELECTRON_RUN_AS_NODE",
    "JAVA_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LUA_*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_EXTERNAL_MODULE",
    "PERL5*",
    "PERLLIB",
    "PHP_INI_SCAN_DIR",
    "PHPRC",
    "PYTHON*",
    "R_ENVIRON*",
    "R_PROFILE*",
    "RUBYLIB",
    "RUBYOPT",
    // Programs that others are made to run.
    "GIT_ASKPASS",
    "GIT_CONFIG*",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SEQUENCE_EDITOR",
    "GIT_SSH*",
    "GIT_TEMPLATE_DIR",
    "NPM_CONFIG_GIT",
    "NPM_CONFIG_GLOBALCONFIG",
    "NPM_CONFIG_NODE_OPTIONS",
    "NPM_CONFIG_SCRIPT_SHELL",
    "NPM_CONFIG_USERCONFIG",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "SSH_ASKPASS",
];

/// A snapshot of environment variables. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// A snapshot of `variables`, such as those of the process that runs Machina.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// The value of `name`, if it is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `text` with its placeholders `${NAME}`, `${env:NAME}` and
    /// `${NAME:-default}` replaced by the values of this snapshot. An empty
    /// variable counts as unset where there is a default.
    ///
    /// # Errors
    /// [`machina_core::ErrorKind::Invalid`] naming `field` and the variable that is not set.
    pub fn resolve(&self, field: &str, text: &str) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start + 2..].find('}') else { break };
            out.push_str(&rest[..start]);
            let inner = &rest[start + 2..start + 2 + length];
            match self.placeholder(field, inner)? {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[start..=start + 2 + length]),
            }
            rest = &rest[start + length + 3..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The value of one placeholder; `None` if `inner` is not the name of a variable.
    fn placeholder<'a>(&'a self, field: &str, inner: &'a str) -> Result<Option<&'a str>> {
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let name = name.strip_prefix("env:").unwrap_or(name);
        if let Some((kind, _)) = name.split_once(':')
            && is_name(kind)
        {
            return Err(Error::invalid_field(
                field,
                format!("the placeholder ${{{name}}} is of the kind `{kind}`; known is only ${{env:NAME}}"),
            ));
        }
        if !is_name(name) {
            return Ok(None);
        }
        match (self.get(name), default) {
            (Some(""), Some(default)) | (None, Some(default)) => Ok(Some(default)),
            (Some(value), _) => Ok(Some(value)),
            (None, None) => Err(Error::invalid_field(
                field,
                format!("the environment variable {name} is not set; set it, or write ${{{name}:-default}}"),
            )),
        }
    }

    /// Those variables whose name matches one of `patterns` (`LC_*` matches a prefix).
    fn select<'a>(&'a self, patterns: &'a [String]) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.0.iter().filter(|(name, _)| patterns.iter().any(|p| matches(p, name)))
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The whole environment of a child: what it inherits and what was declared for it.
///
/// # Errors
/// [`machina_core::ErrorKind::Invalid`] for a dangerous variable that is not in
/// `allowed`, for a malformed name, and for a placeholder that is not set.
pub(crate) fn for_child(
    parent: &Environment,
    inherited: &[String],
    declared: &SensitiveMap,
    allowed: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut child: BTreeMap<_, _> = parent.select(inherited).map(|(n, v)| (n.clone(), v.clone())).collect();
    for (name, value) in declared {
        let field = format!("env.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::invalid_field(field, "a variable's name must not be empty or hold `=`"));
        }
        if is_dangerous(name) && !allowed.iter().any(|p| matches(p, name)) {
            return Err(Error::invalid_field(
                field,
                format!("{name} changes what code a child runs; an operator must allow it in `allow_env`"),
            ));
        }
        child.insert(name.clone(), resolved(parent, &field, value)?);
    }
    Ok(child)
}

fn is_dangerous(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    DANGEROUS.iter().any(|pattern| matches(pattern, &name))
}

/// The text of `value` with its placeholders replaced, fit for the operating system.
pub(crate) fn resolved(parent: &Environment, field: &str, value: &Sensitive) -> Result<String> {
    let text = parent.resolve(field, value.expose())?;
    if text.contains('\0') {
        return Err(Error::invalid_field(field, "must not hold a NUL character"));
    }
    Ok(text)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let pairs = [("HOME", "/home/me"), ("TOKEN", "hunter2"), ("EMPTY", ""), ("LC_ALL", "C"), ("AWS_KEY", "k")];
        Environment::new(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())))
    }

    #[test]
    fn placeholders_are_replaced() {
        let cases = [
            ("${HOME}/x", "/home/me/x"),
            ("${env:HOME}", "/home/me"),
            ("${NOPE:-a b}", "a b"),
            ("${env:NOPE:-}", ""),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${HOME}${TOKEN}", "/home/mehunter2"),
            ("cost: $5 ${} ${1} ${not closed", "cost: $5 ${} ${1} ${not closed"),
            ("ünï ${HOME} ö", "ünï /home/me ö"),
        ];
        for (text, want) in cases {
            assert_eq!(environment().resolve("args[0]", text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn a_missing_variable_is_named_and_no_value_is() {
        let error = environment().resolve("args[2]", "${TOKEN} ${NOPE}").unwrap_err();
        assert_eq!(error.context().problems[0].field, "args[2]");
        assert!(error.message().contains("NOPE") && !error.message().contains("hunter2"), "{error}");
        let error = environment().resolve("env.A", "${input:key}").unwrap_err();
        assert!(error.message().contains("`input`"), "{error}");
    }

    #[test]
    fn a_child_gets_only_what_is_listed_and_declared() {
        let declared = SensitiveMap::from([("KEY".to_owned(), Sensitive::secret("${env:TOKEN}"))]);
        let inherited = ["HOME", "LC_*"].map(String::from);
        let child = for_child(&environment(), &inherited, &declared, &[]).unwrap();
        let names: Vec<_> = child.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "KEY", "LC_ALL"]);
        assert_eq!(child["KEY"], "hunter2");
    }

    #[test]
    fn a_dangerous_variable_is_refused_unless_allowed_by_name() {
        let names = [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "DYLD_INSERT_LIBRARIES",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "PYTHONHOME",
            "PYTHONSTARTUP",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "ENV",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "RUBYLIB",
            "GIT_SSH",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_KEY_0",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "DOTNET_STARTUP_HOOKS",
            "npm_config_script_shell",
            "NPM_CONFIG_NODE_OPTIONS",
        ];
        for name in names {
            let declared = SensitiveMap::from([(name.to_owned(), Sensitive::secret("hunter2"))]);
            let error = for_child(&environment(), &[], &declared, &[]).unwrap_err();
            assert_eq!(error.context().problems[0].field, format!("env.{name}"));
            assert!(error.message().contains("allow_env") && !format!("{error:?}").contains("hunter2"), "{error:?}");
            let other = for_child(&environment(), &[], &declared, &["OTHER".to_owned()]);
            assert!(other.is_err(), "{name} was not allowed");
            assert_eq!(for_child(&environment(), &[], &declared, &[name.to_owned()]).unwrap()[name], "hunter2");
        }
    }

    #[test]
    fn ordinary_variables_are_taken() {
        for name in ["API_KEY", "ENVIRONMENT", "NODE_ENV", "LDAP_URL", "GIT_AUTHOR_NAME", "NPM_CONFIG_REGISTRY", "PATH"]
        {
            let declared = SensitiveMap::from([(name.to_owned(), Sensitive::secret("x"))]);
            assert_eq!(for_child(&environment(), &[], &declared, &[]).unwrap()[name], "x");
        }
    }

    #[test]
    fn debug_shows_names_only() {
        let shown = format!("{:?}", environment());
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
