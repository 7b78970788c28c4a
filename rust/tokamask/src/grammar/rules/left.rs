//! Left recursion. Rules that begin with each other are read from their left corners instead: first
//! a beginning that is none of them, then what each of them adds behind a completed one.

use rustc_hash::FxHashMap;

use super::network::{Network, END, START};
use super::plain_error;
use crate::error::Error;
use crate::grammar::{NodeId, Rule};

/// The deterministic automata of rules, none of which begins with itself.
pub fn remove(nets: &[Network], places: &[NodeId]) -> Result<Vec<Rule>, Error> {
    let rule_of: FxHashMap<NodeId, usize> = places.iter().enumerate().map(|(i, &p)| (p, i)).collect();
    let corners: Vec<Vec<(NodeId, u32)>> = nets
        .iter()
        .map(|net| {
            let start = net.closure([START]);
            start.iter().flat_map(|&state| net.edges[state as usize].iter().copied()).collect()
        })
        .collect();
    let calls: Vec<Vec<usize>> = corners
        .iter()
        .map(|edges| edges.iter().filter_map(|e| rule_of.get(&e.0).copied()).collect())
        .collect();
    let groups = components(&calls);
    let mut rules: Vec<Option<Rule>> = Vec::new();
    rules.resize_with(nets.len(), || None);
    for group in groups {
        let recursive = group.len() > 1 || calls[group[0]].contains(&group[0]);
        if recursive {
            let (net, hubs, start) = joined(nets, &corners, &group, &rule_of)?;
            for (&rule, &hub) in group.iter().zip(&hubs) {
                rules[rule] = Some(net.determinise(start, hub)?);
            }
        } else {
            rules[group[0]] = Some(nets[group[0]].determinise(START, END)?);
        }
    }
    rules.into_iter().map(|rule| rule.ok_or_else(|| plain_error("a rule was lost"))).collect()
}

/// One network for rules that begin with each other. `hubs[i]` is reached when rule `i` is complete.
fn joined(
    nets: &[Network],
    corners: &[Vec<(NodeId, u32)>],
    group: &[usize],
    rule_of: &FxHashMap<NodeId, usize>,
) -> Result<(Network, Vec<u32>, u32), Error> {
    let mut net = Network::new();
    let mut hubs = Vec::with_capacity(group.len());
    for _ in group {
        hubs.push(net.state()?);
    }
    let hub_of: FxHashMap<usize, u32> = group.iter().copied().zip(hubs.iter().copied()).collect();
    for (&rule, &hub) in group.iter().zip(&hubs) {
        let offset = net.edges.len() as u32;
        for _ in &nets[rule].edges {
            net.state()?;
        }
        for (state, edges) in nets[rule].edges.iter().enumerate() {
            let from = offset + state as u32;
            for &(node, to) in edges {
                net.edge(from, node, offset + to);
            }
            for &to in &nets[rule].skips[state] {
                net.skip(from, offset + to);
            }
        }
        net.skip(offset + END, hub);
        for &(node, to) in &corners[rule] {
            match rule_of.get(&node).and_then(|inner| hub_of.get(inner)) {
                Some(&inner) => net.skip(inner, offset + to),
                None => net.edge(START, node, offset + to),
            }
        }
    }
    Ok((net, hubs, START))
}

/// Strongly connected components (Kosaraju), without recursion.
fn components(calls: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let n = calls.len();
    let mut order = Vec::with_capacity(n);
    let mut seen = vec![false; n];
    for root in 0..n {
        let mut todo = vec![(root, false)];
        while let Some((at, left)) = todo.pop() {
            if left {
                order.push(at);
            } else if !std::mem::replace(&mut seen[at], true) {
                todo.push((at, true));
                todo.extend(calls[at].iter().map(|&next| (next, false)));
            }
        }
    }
    let mut callers = vec![Vec::new(); n];
    for (from, list) in calls.iter().enumerate() {
        for &to in list {
            callers[to].push(from);
        }
    }
    let (mut out, mut taken) = (Vec::new(), vec![false; n]);
    for &root in order.iter().rev() {
        let (mut group, mut todo) = (Vec::new(), vec![root]);
        while let Some(at) = todo.pop() {
            if !std::mem::replace(&mut taken[at], true) {
                group.push(at);
                todo.extend(&callers[at]);
            }
        }
        if !group.is_empty() {
            out.push(group);
        }
    }
    out
}
