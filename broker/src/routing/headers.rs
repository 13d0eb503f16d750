//! Headers: bindings match on the headers of the message.
//!
//! Bindings with the same arguments form one group. A group that asks for all of its conditions is
//! filed under one of them, the one that fewest groups are filed under; a group that asks for any
//! is filed under each. So a message looks at the groups that share a header with it, not at all.

use std::hash::Hash;

use super::arena::Arena;
use super::headers_match::{Compiled, Condition, ConditionRef, MessageHeaders, Wanted, WantedRef};
use super::targets::Targets;
use super::visited::Visited;
use crate::model::arguments::Arguments;
use crate::model::collections::Map;

/// The bindings of one headers exchange.
#[derive(Debug)]
pub struct Headers<D> {
    groups: Arena<Group<D>>,
    by_arguments: Map<Box<[u8]>, u32>,
    by_condition: Map<Condition, Targets<u32>>,
    /// Groups that every message satisfies.
    always: Targets<u32>,
}

#[derive(Debug)]
struct Group<D> {
    compiled: Compiled,
    filed: Filed,
    targets: Targets<D>,
}

/// Where the index has a group.
#[derive(Clone, Copy, Debug)]
enum Filed {
    Always,
    Under(usize),
    UnderEach,
    /// Nothing can satisfy it.
    Nowhere,
}

impl<D> Default for Headers<D> {
    fn default() -> Self {
        Self {
            groups: Arena::new(),
            by_arguments: Map::default(),
            by_condition: Map::default(),
            always: Targets::default(),
        }
    }
}

impl<D: Clone + Eq + Hash> Headers<D> {
    /// Adds a binding; `wire` is the canonical form of its arguments.
    pub fn bind(&mut self, destination: &D, arguments: &Arguments, wire: &[u8]) {
        let id = match self.by_arguments.get(wire) {
            Some(id) => *id,
            None => self.add_group(arguments, wire),
        };
        if let Some(group) = self.groups.get_mut(id) {
            group.targets.add(destination);
        }
    }

    /// Removes a binding.
    pub fn unbind(&mut self, destination: &D, wire: &[u8]) {
        let Some(&id) = self.by_arguments.get(wire) else {
            return;
        };
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        group.targets.remove(destination);
        if !group.targets.is_empty() {
            return;
        }
        self.by_arguments.remove(wire);
        if let Some(group) = self.groups.remove(id) {
            self.unfile(id, &group);
        }
    }

    /// Reports the destinations of all groups that match; `headers` is the body of the table. A
    /// destination bound with several matching arguments is reported once for each.
    pub fn route<'t>(&'t self, headers: Option<&[u8]>, visit: &mut impl FnMut(&'t D)) {
        for &id in self.always.iter() {
            self.report(id, visit);
        }
        if self.by_condition.is_empty() {
            return;
        }
        let message = MessageHeaders::new(headers.unwrap_or_default());
        let mut reported = Visited::default();
        for (name, given) in message.iter() {
            let equal = given.map(WantedRef::Equal);
            for wanted in equal.into_iter().chain([WantedRef::Present]) {
                let Some(filed) = self.by_condition.get(&ConditionRef { name, wanted }) else {
                    continue;
                };
                for &id in filed.iter() {
                    self.report_if(id, &message, &mut reported, visit);
                }
            }
        }
    }

    /// Reports a group that was found under one of its conditions, if the others hold as well.
    fn report_if<'t>(
        &'t self,
        id: u32,
        message: &MessageHeaders<'_>,
        reported: &mut Visited<u32>,
        visit: &mut impl FnMut(&'t D),
    ) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        let holds = if group.compiled.all {
            let mut conditions = group.compiled.conditions.iter();
            conditions.all(|condition| message.satisfy(condition))
        } else {
            reported.insert(id)
        };
        if holds {
            group.targets.iter().for_each(visit);
        }
    }

    fn report<'t>(&'t self, id: u32, visit: &mut impl FnMut(&'t D)) {
        if let Some(group) = self.groups.get(id) {
            group.targets.iter().for_each(visit);
        }
    }

    fn add_group(&mut self, arguments: &Arguments, wire: &[u8]) -> u32 {
        let compiled = Compiled::new(arguments);
        let filed = self.place(&compiled);
        let id = self.groups.insert(Group { compiled: compiled.clone(), filed, targets: Targets::default() });
        match filed {
            Filed::Always => self.always.add(&id),
            Filed::Under(at) => self.file(id, compiled.conditions.get(at)),
            Filed::UnderEach => {
                for condition in &compiled.conditions {
                    self.file(id, Some(condition));
                }
            }
            Filed::Nowhere => {}
        }
        self.by_arguments.insert(wire.into(), id);
        id
    }

    fn place(&self, compiled: &Compiled) -> Filed {
        if !compiled.all {
            return Filed::UnderEach;
        }
        if compiled.conditions.is_empty() {
            return Filed::Always;
        }
        let impossible = |condition: &Condition| condition.wanted == Wanted::Nothing;
        if compiled.conditions.iter().any(impossible) {
            return Filed::Nowhere;
        }
        let crowd = |condition: &Condition| self.by_condition.get(condition).map_or(0, Targets::len);
        let conditions = compiled.conditions.iter().enumerate();
        match conditions.min_by_key(|(_, condition)| crowd(condition)) {
            Some((at, _)) => Filed::Under(at),
            None => Filed::Always,
        }
    }

    fn file(&mut self, id: u32, condition: Option<&Condition>) {
        if let Some(condition) = condition
            && condition.wanted != Wanted::Nothing
        {
            let filed = self.by_condition.entry(condition.clone()).or_default();
            filed.add(&id);
        }
    }

    fn unfile(&mut self, id: u32, group: &Group<D>) {
        let from = match group.filed {
            Filed::Always => {
                self.always.remove(&id);
                return;
            }
            Filed::Nowhere => return,
            Filed::Under(at) => group.compiled.conditions.get(at..=at).unwrap_or_default(),
            Filed::UnderEach => &group.compiled.conditions,
        };
        for condition in from {
            if let Some(filed) = self.by_condition.get_mut(condition) {
                filed.remove(&id);
                if filed.is_empty() {
                    self.by_condition.remove(condition);
                }
            }
        }
    }
}
