//! Topic: a trie over the words of the binding keys.
//!
//! A binding key is first brought into a normal form: in a run of wildcards, all `*` come before
//! at most one `#`, which matches the same keys. So no `#` edge follows another, and the walk is a
//! simulation of a small automaton: one set of nodes per word, where a node behind `#` stays in the
//! set for the rest of the key. The work is bounded by words times nodes whatever the patterns are.

use std::hash::Hash;

use smallvec::SmallVec;

use super::arena::Arena;
use super::targets::Targets;
use super::visited::Visited;
use crate::model::collections::Map;

/// The trie of one topic exchange.
#[derive(Debug)]
pub struct Topic<D> {
    nodes: Arena<Node<D>>,
    root: u32,
}

#[derive(Debug)]
struct Node<D> {
    words: Map<Box<str>, u32>,
    any_word: Option<u32>,
    any_words: Option<u32>,
    targets: Targets<D>,
}

/// One step of a pattern in normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'k> {
    Word(&'k str),
    AnyWord,
    AnyWords,
}

impl<D> Default for Node<D> {
    fn default() -> Self {
        Self { words: Map::default(), any_word: None, any_words: None, targets: Targets::default() }
    }
}

impl<D: Clone + Eq + Hash> Node<D> {
    fn child(&self, step: Step<'_>) -> Option<u32> {
        match step {
            Step::Word(word) => self.words.get(word).copied(),
            Step::AnyWord => self.any_word,
            Step::AnyWords => self.any_words,
        }
    }

    fn set_child(&mut self, step: Step<'_>, child: u32) {
        match step {
            Step::Word(word) => {
                self.words.insert(word.into(), child);
            }
            Step::AnyWord => self.any_word = Some(child),
            Step::AnyWords => self.any_words = Some(child),
        }
    }

    fn clear_child(&mut self, step: Step<'_>) {
        match step {
            Step::Word(word) => {
                self.words.remove(word);
                if self.words.is_empty() {
                    self.words = Map::default();
                }
            }
            Step::AnyWord => self.any_word = None,
            Step::AnyWords => self.any_words = None,
        }
    }

    fn is_unused(&self) -> bool {
        self.targets.is_empty() && self.words.is_empty() && self.any_word.is_none() && self.any_words.is_none()
    }
}

impl<D: Clone + Eq + Hash> Default for Topic<D> {
    fn default() -> Self {
        let mut nodes = Arena::new();
        let root = nodes.insert(Node::default());
        Self { nodes, root }
    }
}

impl<D: Clone + Eq + Hash> Topic<D> {
    /// Adds a binding.
    pub fn bind(&mut self, destination: &D, key: &str) {
        let mut at = self.root;
        for step in steps(key) {
            let known = self.nodes.get(at).and_then(|node| node.child(step));
            at = match known {
                Some(child) => child,
                None => {
                    let child = self.nodes.insert(Node::default());
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.set_child(step, child);
                    }
                    child
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.targets.add(destination);
        }
    }

    /// Removes a binding and the nodes only it needed.
    pub fn unbind(&mut self, destination: &D, key: &str) {
        let mut path: SmallVec<[(u32, Step<'_>); 16]> = SmallVec::new();
        let mut at = self.root;
        for step in steps(key) {
            let Some(child) = self.nodes.get(at).and_then(|node| node.child(step)) else {
                return;
            };
            path.push((at, step));
            at = child;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.targets.remove(destination);
        }
        while let Some((parent, step)) = path.pop() {
            if !self.nodes.get(at).is_some_and(Node::is_unused) {
                return;
            }
            self.nodes.remove(at);
            if let Some(node) = self.nodes.get_mut(parent) {
                node.clear_child(step);
            }
            at = parent;
        }
    }

    /// Reports the destinations of all patterns that match; one that is bound with several
    /// matching patterns is reported once per pattern.
    pub fn route<'t>(&'t self, key: &str, visit: &mut impl FnMut(&'t D)) {
        // Nodes behind a `#` that was reached: they match any number of words, so they stay.
        let mut staying = Visited::default();
        let mut current: SmallVec<[u32; 16]> = SmallVec::new();
        let mut next: SmallVec<[u32; 16]> = SmallVec::new();
        current.push(self.root);
        self.enter_any_words(&current, &mut staying);
        for word in words(key) {
            for &id in current.iter().chain(staying.as_slice()) {
                if let Some(node) = self.nodes.get(id) {
                    next.extend(node.words.get(word).copied());
                    next.extend(node.any_word);
                }
            }
            std::mem::swap(&mut current, &mut next);
            next.clear();
            self.enter_any_words(&current, &mut staying);
            if current.is_empty() && staying.as_slice().is_empty() {
                return;
            }
        }
        for &id in current.iter().chain(staying.as_slice()) {
            if let Some(node) = self.nodes.get(id) {
                node.targets.iter().for_each(&mut *visit);
            }
        }
    }

    /// A `#` also matches no word at all, so reaching a node reaches what is behind its `#`.
    fn enter_any_words(&self, reached: &[u32], staying: &mut Visited<u32>) {
        for &id in reached {
            if let Some(behind) = self.nodes.get(id).and_then(|node| node.any_words) {
                staying.insert(behind);
            }
        }
    }

    #[cfg(test)]
    fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

/// The words of a key. The empty key has none; elsewhere empty words count.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// The steps of a binding key in normal form.
fn steps(key: &str) -> impl Iterator<Item = Step<'_>> {
    let mut open = false;
    let mut held: Option<&str> = None;
    let mut rest = words(key);
    std::iter::from_fn(move || {
        if let Some(word) = held.take() {
            return Some(Step::Word(word));
        }
        loop {
            match rest.next() {
                Some("#") => open = true,
                Some("*") => return Some(Step::AnyWord),
                Some(word) if std::mem::take(&mut open) => {
                    held = Some(word);
                    return Some(Step::AnyWords);
                }
                Some(word) => return Some(Step::Word(word)),
                None => return std::mem::take(&mut open).then_some(Step::AnyWords),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        let mut topic = Topic::default();
        topic.bind(&1, pattern);
        let mut hits = 0;
        topic.route(key, &mut |_| hits += 1);
        assert!(hits <= 1, "one binding must be reported once");
        hits == 1
    }

    #[test]
    fn rules_of_matching() {
        for (pattern, key) in [
            ("a.b.c", "a.b.c"),
            ("a.*.c", "a.b.c"),
            ("#", "a.b.c"),
            ("#", ""),
            ("#.#", ""),
            ("", ""),
            ("a.#", "a"),
            ("a.#", "a.b.c"),
            ("#.c", "c"),
            ("#.c", "a.b.c"),
            ("#.b.#", "a.b.c"),
            ("*.*", "a."),
            ("a.*.b", "a..b"),
            ("a.", "a."),
            ("#.*", "a"),
            ("*.#.*", "a.b"),
            ("**", "**"),
            ("a.#.b.#.c", "a.x.b.b.y.c"),
        ] {
            assert!(matches(pattern, key), "{pattern} should match {key}");
        }
        for (pattern, key) in [
            ("a.b", "a.b.c"),
            ("a.*", "a"),
            ("*", ""),
            ("", "a"),
            ("*", "a.b"),
            ("**", "a"),
            ("#.*", ""),
            ("*.#.*", "a"),
            ("a.", "a"),
            ("a", "a."),
            ("a#", "ab"),
        ] {
            assert!(!matches(pattern, key), "{pattern} should not match {key}");
        }
    }

    #[test]
    fn patterns_are_brought_into_normal_form() {
        let normal: Vec<Step<'_>> = steps("#.*.#.#.a.*.#.*").collect();
        assert_eq!(
            normal,
            [Step::AnyWord, Step::AnyWords, Step::Word("a"), Step::AnyWord, Step::AnyWord, Step::AnyWords]
        );
    }

    #[test]
    fn unbind_prunes_to_the_root() {
        let keys = ["a.b.c", "a.b", "#.x.#", "*.*.#.q", "", "a.b.c.d"];
        let mut topic = Topic::default();
        for key in keys {
            topic.bind(&7, key);
        }
        for key in keys {
            topic.unbind(&7, key);
        }
        assert_eq!(topic.node_count(), 1);
        topic.unbind(&7, "never.bound");
        assert_eq!(topic.node_count(), 1);
    }

    #[test]
    fn the_walk_does_not_grow_exponentially() {
        // Backtracking over this pattern and key would take longer than the universe has had.
        let mut topic = Topic::default();
        let pattern = ["#.a"; 30].join(".") + ".#.b";
        topic.bind(&1, &pattern);
        let key = ["a"; 100].join(".");
        let mut hits = 0;
        topic.route(&key, &mut |_| hits += 1);
        assert_eq!(hits, 0);
        topic.route(&(key + ".b"), &mut |_| hits += 1);
        assert_eq!(hits, 1);
    }
}
